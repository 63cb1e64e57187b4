"""What classifying a dataset costs beside its inference, and whether a million images survive a SIGKILL."""
