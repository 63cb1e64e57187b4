"""Ways to run the network, and choosing the one that serves."""
