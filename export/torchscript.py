"""The TorchScript file of an artifact."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch

from export.inference import InferenceCascade, InferenceNetwork


def write_torchscript(network: InferenceNetwork | InferenceCascade, path: Path) -> None:
    """Script the network, control flow included, and write it to `path`."""
    saved = io.BytesIO()
    torch.jit.save(torch.jit.script(network), saved)
    path.write_bytes(without_debug_files(saved.getvalue()))


def without_debug_files(saved: bytes) -> bytes:
    """A TorchScript archive without what says where its source lay on the machine that exported it.

    PyTorch uses that for the messages of errors only; paths do not belong into a file that is given to others.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved)) as archive, zipfile.ZipFile(kept, "w", zipfile.ZIP_STORED) as stripped:
        for entry in archive.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                # A fixed date: the same network gives the same file.
                stripped.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    return kept.getvalue()
