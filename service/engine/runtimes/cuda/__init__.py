"""Gated networks on an NVIDIA GPU: decisions are taken and followed on the device, and nothing waits for the host."""
