"""Small images in tar shards, each named by its number."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

_SHARD_IMAGES = 10_000


def write_shards(folder: Path, files: Sequence[bytes], images: int) -> Path:
    """Write so many images into a folder, these files in turn, unless it is there; return it."""
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    for first in tqdm(range(0, images, _SHARD_IMAGES), desc="shards", leave=False):
        with tarfile.open(unfinished / f"{first // _SHARD_IMAGES:05d}.tar", "w") as tar:
            for number in range(first, min(first + _SHARD_IMAGES, images)):
                member, data = tarfile.TarInfo(f"{number:08d}.jpg"), files[number % len(files)]
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return unfinished.rename(folder)
