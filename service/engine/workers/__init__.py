"""What runs batches: a thread or a process, supervised."""
