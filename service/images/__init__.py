"""Image files: decoding them within bounds, and the worker processes that take them."""
