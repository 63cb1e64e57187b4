from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from export.inference import InferenceNetwork
from export.torchscript import write_torchscript
from tests.networks import small_network

ROOT = str(Path(__file__).parents[2]).encode()


def test_exported_file_does_not_say_where_it_was_made(tmp_path: Path) -> None:
    serving = InferenceNetwork(small_network())
    as_pytorch_writes_it, path = tmp_path / "pytorch.ts", tmp_path / "model.ts"
    torch.jit.script(serving).save(str(as_pytorch_writes_it))
    write_torchscript(serving, path)

    def tells(file: Path) -> bool:
        with zipfile.ZipFile(file) as archive:
            return any(ROOT in archive.read(name) for name in archive.namelist())

    assert tells(as_pytorch_writes_it)  # or this test sees nothing
    assert not tells(path)


def test_exported_file_computes_what_the_network_does(tmp_path: Path) -> None:
    serving = InferenceNetwork(small_network())
    write_torchscript(serving, tmp_path / "model.ts")
    loaded = torch.jit.load(tmp_path / "model.ts")
    images, offsets = torch.randn(3, 3, 32, 32), torch.tensor([0.0, 1e4, -1e4])
    for expected, actual in zip(serving(images, offsets), loaded(images, offsets), strict=True):
        torch.testing.assert_close(actual, expected)
