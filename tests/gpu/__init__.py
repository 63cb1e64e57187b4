"""What only a GPU can show: `make test-gpu` runs it, and elsewhere it is skipped."""
