"""The TorchScript file of an artifact."""

from __future__ import annotations

from pathlib import Path

import torch

from export.inference import InferenceNetwork


def write_torchscript(network: InferenceNetwork, path: Path) -> None:
    """Script the network, control flow included, and write it to `path`."""
    torch.jit.script(network).save(str(path))
