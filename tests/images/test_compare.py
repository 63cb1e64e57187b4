from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifact.preprocessing import UInt8Array
from tests.image_files import encoded, photograph
from tests.images import compare
from tests.images.compare import main
from tests.images.other_decoders import CannotDecode


def _pillow(path: Path) -> UInt8Array:
    """A decoder that reads PNGs alone, one of them wrong."""
    if path.suffix != ".png":
        raise CannotDecode("it is no PNG")
    pixels = np.asarray(photograph(40, 30))
    return 255 - pixels if path.stem == "negative" else pixels


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compare, "other_decoder", lambda: _pillow)
    (tmp_path / "right.png").write_bytes(encoded(photograph(40, 30)))
    return tmp_path


def test_images_that_are_read_alike_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.txt").write_text("no image")
    assert main([str(folder), "--side", "28"]) == 0
    assert capsys.readouterr().out == "1 images, 0 differ, 1 files that neither reads\n"


def test_images_that_differ_are_listed_with_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "negative.png").write_bytes(encoded(photograph(40, 30)))
    (folder / "alone.jpg").write_bytes(encoded(photograph(40, 30), "JPEG"))
    (folder / "cut.png").write_bytes(encoded(photograph(40, 30))[:500])
    assert main([str(folder), "--side", "28"]) == 1
    alone, cut, negative, summary = capsys.readouterr().out.splitlines()
    assert alone == f"{folder / 'alone.jpg'}: read here alone; there: it is no PNG"
    assert "refused here" in cut
    assert "levels on average" in negative
    assert summary.startswith("4 images, 3 differ")


def test_folder_without_images_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "other_decoder", lambda: _pillow)
    assert main([str(tmp_path)]) == 1


def test_lack_of_another_decoder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(tmp_path)]) == 2
    assert "neither ImageMagick nor libvips" in capsys.readouterr().err
