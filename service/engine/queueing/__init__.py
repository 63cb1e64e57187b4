"""Which request runs when, and which is refused."""
