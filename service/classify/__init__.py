"""One request with images, from its head to its answer. It knows of no transport."""
