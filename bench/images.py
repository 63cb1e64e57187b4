"""The images a benchmark sends, as files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from artifact.manifest import read_manifest
from artifact.preprocessing import UInt8Array
from artifact.probes import read_probes


def probe_jpegs(model: Path, most: int = 64) -> list[bytes]:
    """The probes of the artifact in `model` as JPEG files of quality 90, at the network's input size."""
    manifest = read_manifest(model)
    mean = np.array(manifest.preprocessing.mean, np.float32)[:, None, None]
    std = np.array(manifest.preprocessing.std, np.float32)[:, None, None]
    files = []
    for image in read_probes(model, manifest).images[:most]:
        pixels = np.clip((image * std + mean) * 255, 0, 255).round().astype(np.uint8).transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def png(pixels: UInt8Array) -> bytes:
    """Pixels (H, W, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
