"""The TorchScript file of an artifact."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from export.inference import InferenceNetwork


def write_torchscript(network: InferenceNetwork, path: Path) -> None:
    """Script the network, control flow included, and write it to `path`."""
    with warnings.catch_warnings():
        # PyTorch calls TorchScript deprecated in favour of torch.export, which has no file other runtimes can load
        # that keeps control flow by image; the artifact promises a .ts file.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
