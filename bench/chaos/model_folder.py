"""The folder a service reads its model from, with which things happen behind its back."""

from __future__ import annotations

import shutil
from pathlib import Path

from artifact.manifest import MANIFEST_NAME, ONNX_NAME


class ModelFolder:
    """Holds a copy of one model at a time.

    Attributes:
        path: of the folder.
        version: of the model that is in it.

    Args:
        path: of a folder that is not there yet.
        sources: models by version; the first is copied now.
    """

    def __init__(self, path: Path, sources: dict[str, Path]) -> None:
        self.path = path
        self._sources = sources
        self.version = next(iter(sources))
        path.mkdir()
        self._copy()

    def damage(self) -> None:
        """Change one byte of the graph."""
        file = self.path / ONNX_NAME
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        _replace(file, bytes(data))

    def restore(self) -> None:
        """Undo the damage."""
        self._copy()

    def swap(self) -> None:
        """Put the next model in place of this one."""
        versions = list(self._sources)
        self.version = versions[(versions.index(self.version) + 1) % len(versions)]
        self._copy()

    def _copy(self) -> None:
        """Copy the model's files, the manifest last, so that a worker that starts meanwhile sees it does not fit."""
        files = sorted(self._sources[self.version].iterdir(), key=lambda file: file.name == MANIFEST_NAME)
        for file in files:
            if file.is_file():
                _replace(self.path / file.name, file.read_bytes())


def _replace(file: Path, content: bytes) -> None:
    """Give a file another content at one moment."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    shutil.move(unfinished, file)
