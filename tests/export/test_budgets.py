from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from artifact.budgets import BudgetCurve
from artifact.manifest import ALWAYS, MANIFEST_NAME, NEVER, read_manifest
from export.__main__ import main
from export.add_budgets import main as add_budgets
from export.budgets import FEWEST_IMAGES, measure_budgets
from export.parity import eager_runner, gating_of
from models.answers import Images
from models.cascade import Network
from models.checkpoint import Checkpoint, save
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from tests.cascades import cascade
from tests.conftest import MakeFolders
from tests.hold_out import told_held_out
from tests.networks import checkpoint_of, small_config, small_network

LABELS = small_config().labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path_factory.mktemp("data"), LABELS, each=40, side=16)


@pytest.fixture(scope="module")
def images(data: Path) -> Images:
    examples = open_examples(data)
    return Images(examples, np.arange(len(examples)), small_config().preprocessing)


def _measured(network: Network, images: Images, gate_threshold: float = 0.0) -> BudgetCurve | None:
    return measure_budgets(eager_runner(network, gate_threshold), gating_of(network, gate_threshold), images)


def test_rows_are_what_the_network_does_with_their_offsets(images: Images) -> None:
    network = small_network()
    curve = _measured(network, images, 0.2)
    assert curve is not None
    assert curve.images == 240
    assert (curve.rows[0].gate_offset, curve.rows[-1].gate_offset) == (NEVER, ALWAYS)
    assert 0.0 in [row.gate_offset for row in curve.rows]
    run, gating = eager_runner(network, 0.2), gating_of(network, 0.2)
    inputs = images.preprocessing.normalise(images.pixels(np.arange(240)))
    full = run(inputs, np.full(240, ALWAYS, np.float32))[0].argmax(axis=1)
    for row in curve.rows[:: len(curve.rows) // 4]:
        offsets = np.full(240, row.gate_offset, np.float32)
        logits, margins = run(inputs, offsets)
        spent = gating.spent_macs(gating.executed(gating.opened(margins, offsets))) / gating.total_macs
        assert row.mac_share == pytest.approx(spent.mean())
        assert row.mac_share_p95 == pytest.approx(np.quantile(spent, 0.95))
        assert row.accuracy.value == pytest.approx((logits.argmax(axis=1) == images.classes).mean())
        assert row.accuracy.low < row.accuracy.value < row.accuracy.high
        assert row.same_as_full == pytest.approx((logits.argmax(axis=1) == full).mean())


def test_rows_go_from_the_least_to_all_in_small_steps(images: Images) -> None:
    curve = _measured(cascade(2), images)
    assert curve is not None
    shares = [row.mac_share for row in curve.rows]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert max(np.diff(shares[1:-1])) < 0.08
    assert curve.rows[-1].same_as_full == 1.0


def test_network_without_gates_has_no_budgets(images: Images) -> None:
    assert _measured(small_network(target_rates=(1.0,) * 5), images) is None


def _checkpoint(tmp_path: Path, data: Path, network: AdaptiveResNet, held_out: int) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save(path, Checkpoint(network.config, network.state_dict(), told_held_out(data, held_out)))
    return path


def test_budgets_are_of_the_images_that_training_held_out(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _checkpoint(tmp_path, data, small_network(), 204)
    arguments = [str(path), "--images", str(data), "--count", "4"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.budgets is not None
    assert manifest.budgets.images == 204
    assert "on 204 images that training did not see" in capsys.readouterr().out


@pytest.mark.parametrize("held_out", [0, FEWEST_IMAGES - 8])
def test_too_few_images_that_training_did_not_see_give_no_budgets(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], held_out: int
) -> None:
    path = _checkpoint(tmp_path, data, small_network(), held_out)
    assert main([str(path), "--images", str(data), "--count", "4", "--out", str(tmp_path / "out")]) == 0
    assert read_manifest(tmp_path / "out").budgets is None
    assert f"no budgets without {FEWEST_IMAGES} images" in capsys.readouterr().out


def test_checkpoint_of_other_images_tells_nothing_of_these(
    tmp_path: Path, data: Path, make_class_folders: MakeFolders
) -> None:
    others = make_class_folders(tmp_path / "others", LABELS, each=41, side=16)
    path = _checkpoint(tmp_path, data, small_network(), 204)
    assert main([str(path), "--images", str(others), "--count", "4", "--out", str(tmp_path / "out")]) == 0
    assert read_manifest(tmp_path / "out").budgets is None


def test_budgets_may_be_of_a_test_set(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save(path, checkpoint_of(small_network()))
    arguments = [str(path), "--images", str(data), "--count", "4", "--unseen", str(data)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.budgets is not None
    assert manifest.budgets.images == 240


def test_test_set_of_other_classes_is_refused(
    tmp_path: Path, data: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    others = make_class_folders(tmp_path / "others", ("x", "y"), each=110, side=16)
    path = tmp_path / "checkpoint.safetensors"
    save(path, checkpoint_of(small_network()))
    arguments = [str(path), "--images", str(data), "--count", "4", "--unseen", str(others)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "are not the network's" in capsys.readouterr().err


@pytest.fixture
def without(tmp_path: Path, artifact: Path) -> Path:
    """A copy of an artifact without budgets."""
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


def test_budgets_are_added_to_an_artifact_that_has_none(
    without: Path, artifact: Path, data: Path, images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add_budgets([str(without), "--images", str(data), "--all"]) == 0
    manifest, curve = read_manifest(without), _measured(small_network(), images)
    assert curve is not None
    assert manifest.budgets is not None
    assert [row.gate_offset for row in manifest.budgets.rows] == [row.gate_offset for row in curve.rows]
    assert manifest.budgets.rows[3].mac_share == pytest.approx(curve.rows[3].mac_share, abs=0.005)
    assert manifest.model_copy(update={"budgets": None}) == read_manifest(artifact)
    assert capsys.readouterr().out.count("gate offset") == len(curve.rows)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--held-out", "12"], "need 200 images at least, not 12"), (["--held-out", "1000"], "cannot hold out")],
)
def test_artifact_stays_as_it_is_where_budgets_cannot_be_measured(
    without: Path, data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    before = (without / MANIFEST_NAME).read_bytes()
    assert add_budgets([str(without), "--images", str(data), *arguments]) == 1
    assert complaint in capsys.readouterr().err
    assert (without / MANIFEST_NAME).read_bytes() == before
