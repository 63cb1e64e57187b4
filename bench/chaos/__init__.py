"""A soak in which everything goes wrong at once: python -m bench.chaos --minutes 10."""
