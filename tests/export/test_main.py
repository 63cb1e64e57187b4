from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.manifest import file_digest, read_manifest
from artifact.preprocessing import Preprocessing
from export.__main__ import main
from models import checkpoint
from models.resnet import AdaptiveResNet
from tests.conftest import MakeFolders
from tests.networks import checkpoint_of, small_network


@pytest.fixture
def trained(tmp_path: Path, network: AdaptiveResNet) -> Path:
    path = tmp_path / "trained.safetensors"
    checkpoint.save(path, checkpoint_of(network))
    return path


def test_checkpoint_becomes_an_artifact_verified_on_real_images(
    tmp_path: Path, trained: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_class_folders(tmp_path / "data", ["ant", "bee"], each=5)
    out = tmp_path / "models" / "small" / "3"
    arguments = ["--out", str(out), "--images", str(folders), "--count", "6", "--version", "3"]
    assert main([str(trained), *arguments, "--gate-threshold", "0.25"]) == 0
    manifest = read_manifest(out)
    assert (manifest.name, manifest.version, manifest.gate_threshold) == ("small", "3", 0.25)
    assert manifest.source_digest == file_digest(trained)
    assert (manifest.verification.images, manifest.verification.generated_images) == (6, False)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "comparing it with the checkpoint on 6 images" in printed.out
    assert f"verified: {manifest.verification.gates_compared} gate decisions equal" in printed.out
    assert printed.out.endswith(f"small version 3 is in {out}\n")


def test_without_images_it_verifies_on_generated_ones_and_says_so(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(trained), "--out", str(tmp_path / "out"), "--count", "8"]) == 0
    verification = read_manifest(tmp_path / "out").verification
    assert (verification.images, verification.generated_images) == (8, True)
    assert capsys.readouterr().err.startswith("note: verifying on generated images")


def test_images_are_spread_evenly_over_those_given(
    tmp_path: Path, make_class_folders: MakeFolders, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    folders = make_class_folders(tmp_path / "data", ["ant", "bee"], each=3, side=16)
    seen: list[np.ndarray] = []

    def note(_self: Preprocessing, image: object) -> np.ndarray:
        seen.append(np.asarray(image))
        return np.zeros((3, 16, 16), np.float32)

    monkeypatch.setattr(Preprocessing, "apply", note)
    main([str(trained), "--out", str(tmp_path / "out"), "--images", str(folders), "--count", "3"])
    paths = [folders / "ant" / "000.png", folders / "ant" / "002.png", folders / "bee" / "002.png"]
    assert all(np.array_equal(image, np.asarray(Image.open(path))) for image, path in zip(seen, paths, strict=True))


def _damaged(folder: Path) -> Path:
    path = folder / "damaged.safetensors"
    path.write_bytes(b"no checkpoint")
    return path


def _unfitting(folder: Path) -> Path:
    path = folder / "unfitting.safetensors"
    other = small_network(stage_widths=(4, 8, 8))
    checkpoint.save(path, checkpoint.Checkpoint(small_network().config, other.state_dict()))
    return path


def _not_a_number(folder: Path) -> Path:
    path = folder / "nan.safetensors"
    network = small_network()
    network.state_dict()["classifier.bias"][0] = float("nan")
    checkpoint.save(path, checkpoint_of(network))
    return path


def _published(folder: Path) -> Path:
    path = folder / "published.pth.tar"
    path.write_bytes(b"no checkpoint")
    return path


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: folder / "missing.safetensors", "there is no checkpoint"),
        (_damaged, "is not a checkpoint"),
        (_unfitting, "do not fit"),
        (_not_a_number, "differs by nan"),
        (_published, "preset"),
    ],
    ids=["missing", "damaged", "of another shape", "with a NaN", "published, but no preset named"],
)
def test_checkpoint_that_cannot_be_exported_is_one_line_of_error(
    tmp_path: Path, make: Callable[[Path], Path], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main([str(path), "--out", str(tmp_path / "out"), "--count", "8"]) == 1
    _assert_one_line(capsys, complaint)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--images", "{tmp}/nowhere"], "nowhere does not exist"),
        (["--images", "{tmp}/empty"], "no images"),
        (["--images", "{tmp}/trained.safetensors"], "neither a folder"),
        (["--version", "not a version"], "version"),
        (["--count", "0"], "image"),
        (["--count", "-1"], ""),
        (["--gate-threshold", "nan"], ""),
        (["--out", "{tmp}/empty"], "exists"),
        (["--out", "{tmp}/trained.safetensors/below/a/file"], ""),
    ],
    ids=lambda value: " ".join(value).replace("{tmp}", ".") if isinstance(value, list) else "",
)
def test_argument_that_cannot_work_is_one_line_of_error(
    tmp_path: Path, trained: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    # The last --out counts.
    assert main([str(trained), "--out", str(tmp_path / "out"), "--count", "8", *given]) == 1
    _assert_one_line(capsys, complaint)
    assert sorted(tmp_path.rglob("*")) == before


def _assert_one_line(capsys: pytest.CaptureFixture[str], complaint: str) -> None:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert complaint in lines[0]
