"""A GPU belongs to one process, which merges what all workers want run on it."""
