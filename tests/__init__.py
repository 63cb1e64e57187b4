"""Tests mirror the folders of what they test."""

import os

# Read when Triton is imported, which PyTorch does: there is no GPU, and its interpreter shows what kernels do. What
# compiles kernels does so in processes of its own. `make test-gpu` says otherwise.
os.environ.setdefault("TRITON_INTERPRET", "1")
