from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from artifact.manifest import file_digest, read_manifest
from artifact.preprocessing import Preprocessing
from artifact.probes import read_probes
from export import artifact_writer
from export.__main__ import main
from export.calibration import Quantisation, calibrate
from export.inference import InferenceNetwork
from export.profile import measure_profile
from models import checkpoint
from models.hold_out import split
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from tests.conftest import MakeFolders
from tests.networks import checkpoint_of, colour_fields, confident_network, small_network

pytestmark = pytest.mark.slow


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
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(Preprocessing, "fit", note)
    main([str(trained), "--out", str(tmp_path / "out"), "--images", str(folders), "--count", "3"])
    paths = [folders / "ant" / "000.png", folders / "ant" / "002.png", folders / "bee" / "002.png"]
    verified = seen[:3]  # the others are those of the profile
    assert all(np.array_equal(image, np.asarray(Image.open(path))) for image, path in zip(verified, paths, strict=True))


@pytest.fixture
def confident(tmp_path: Path) -> Path:
    path = tmp_path / "confident.safetensors"
    checkpoint.save(path, checkpoint_of(confident_network()))
    return path


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Forty colour fields, half of them called ants and half bees."""
    for number, pixels in enumerate(colour_fields(40)):
        path = tmp_path / "fields" / ("ant", "bee")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "fields"


@pytest.fixture
def calibrated_on(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The images that an int8 graph is calibrated on."""
    seen: list[np.ndarray] = []

    def note(network: InferenceNetwork, names: list[str], images: np.ndarray) -> dict[str, Quantisation]:
        seen.extend(images)
        return calibrate(network, names, images)

    monkeypatch.setattr(artifact_writer, "calibrate", note)
    return seen


@pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx512_vnni", False),
    reason="without VNNI sums of 8-bit products may saturate, and this network then agrees too seldom",
)
def test_int8_graph_is_calibrated_on_images_it_is_not_compared_on(
    tmp_path: Path, confident: Path, fields: Path, calibrated_on: list[np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(confident), "--out", str(out), "--images", str(fields), "--count", "8", "--int8"]) == 0
    agreement = read_manifest(out).int8
    assert agreement is not None
    assert (agreement.images, agreement.calibration_images) == (8, 32)
    probes = {image.tobytes() for image in read_probes(out, read_manifest(out)).images}
    assert len(probes) == 8
    assert len({image.tobytes() for image in calibrated_on} - probes) == 32
    assert "int8, calibrated on 32 images: " in capsys.readouterr().out


def test_int8_graph_is_calibrated_on_the_images_given_for_it(
    tmp_path: Path, confident: Path, fields: Path, make_class_folders: MakeFolders, calibrated_on: list[np.ndarray]
) -> None:
    others = make_class_folders(tmp_path / "others", ["ant", "bee"], each=20, side=16)
    arguments = ["--images", str(others), "--count", "4", "--int8", "--calibration-images", str(fields)]
    assert main([str(confident), "--out", str(tmp_path / "out"), *arguments, "--calibration-count", "30"]) == 0
    preprocessing = confident_network().config.preprocessing
    given = {preprocessing.normalise(preprocessing.fit(Image.open(path))).tobytes() for path in fields.rglob("*.png")}
    assert len({image.tobytes() for image in calibrated_on} & given) == 30


def test_int8_graph_is_calibrated_on_none_of_the_images_held_out_of_training(
    tmp_path: Path, confident: Path, fields: Path, calibrated_on: list[np.ndarray]
) -> None:
    arguments = ["--images", str(fields), "--count", "4", "--int8", "--held-out", "10"]
    assert main([str(confident), "--out", str(tmp_path / "out"), *arguments]) == 0
    examples = open_examples(fields)
    preprocessing = confident_network().config.preprocessing
    held_out = {
        preprocessing.normalise(preprocessing.fit(examples.image(int(index)))).tobytes()
        for index in split(examples, 10)[1]
    }
    assert len(held_out) == 10
    assert not held_out & {image.tobytes() for image in calibrated_on}


def test_profile_is_of_the_images_held_out_of_training(
    tmp_path: Path, trained: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_class_folders(tmp_path / "data", ["ant", "bee"], each=110, side=16)
    arguments = [str(trained), "--images", str(folders), "--count", "8"]
    assert main([*arguments, "--out", str(tmp_path / "held"), "--held-out", "120"]) == 0
    profile = read_manifest(tmp_path / "held").profile
    assert profile is not None
    assert "over 120 images" in capsys.readouterr().out
    examples, network = open_examples(folders), small_network()
    held_out = split(examples, 120)[1]
    preprocessing = network.config.preprocessing
    pixels = np.stack([preprocessing.normalise(preprocessing.fit(examples.image(int(index)))) for index in held_out])
    assert profile == measure_profile(network, [pixels])
    assert main([*arguments, "--out", str(tmp_path / "all")]) == 0
    every = read_manifest(tmp_path / "all").profile
    assert every is not None
    assert (profile.images, every.images) == (120, 220)
    assert main([*arguments, "--out", str(tmp_path / "some"), "--profile-count", "101"]) == 0
    some = read_manifest(tmp_path / "some").profile
    assert some is not None
    assert some.images == 101


def test_images_that_cannot_be_read_stop_the_export_or_are_left_out(
    tmp_path: Path, trained: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_class_folders(tmp_path / "data", ["ant", "bee"], each=5, side=16)
    (folders / "bee" / "004.png").write_bytes(b"damaged")
    arguments = [str(trained), "--images", str(folders), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    _assert_one_line(capsys, f"cannot decode {folders}/bee/004.png: ")
    assert main([*arguments, "--bad-images", "skip"]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"note: 1 of 10 images cannot be read and are left out:\n  {folders}/bee/004.png\n"
    assert "on 9 images" in printed.out


def test_generated_images_are_no_profile(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trained), "--out", str(tmp_path / "out"), "--count", "120"]) == 0
    assert read_manifest(tmp_path / "out").profile is None
    assert "profile" not in capsys.readouterr().out


def test_int8_graph_without_images_is_one_line_of_error(
    tmp_path: Path, confident: Path, fields: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    for arguments, complaint in (
        ([], "give --images"),
        (["--images", str(fields), "--count", "40"], "every image to calibrate on is one to verify on"),
        (["--images", str(fields), "--calibration-images", str(tmp_path / "nowhere")], "nowhere does not exist"),
        (["--images", str(fields), "--calibration-count", "0"], "--calibration-count"),
        (["--images", str(fields), "--held-out", "100"], "cannot hold out 100 of 40 images"),
    ):
        assert main([str(confident), "--out", str(tmp_path / "out"), "--int8", *arguments]) == 1
        _assert_one_line(capsys, complaint)
    assert sorted(tmp_path.rglob("*")) == before


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
        (_published, "does not say its network, as others saved it: add --preset"),
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
        (["--preset", "convnet-aig-20-cifar10"], "leave out --preset"),
        (["--count", "0"], "image"),
        (["--count", "-1"], ""),
        (["--profile-count", "0"], "--profile-count"),
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


@pytest.mark.parametrize("threshold", ["nan", "inf"])
def test_gate_threshold_must_be_finite(
    tmp_path: Path, trained: Path, threshold: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(trained), "--out", str(tmp_path / "out"), "--gate-threshold", threshold])
    assert f"argument --gate-threshold: '{threshold}' is not a finite number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_is_one_line(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifact_writer, "write_torchscript", interrupted)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(trained), "--out", str(tmp_path / "out"), "--count", "8"]) == 130
    assert capsys.readouterr().err.splitlines()[1:] == ["interrupted: nothing was exported"]  # after the note
    assert sorted(tmp_path.rglob("*")) == before


def _assert_one_line(capsys: pytest.CaptureFixture[str], complaint: str) -> None:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert complaint in lines[0]
