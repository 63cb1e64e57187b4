"""Several server processes on one port, which are one service to whoever asks."""
