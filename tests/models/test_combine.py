from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.cascade import log_probabilities
from artifact.preprocessing import Float32Array
from models.checkpoint import Checkpoint, CheckpointError, load, save
from models.combine import combined, limits, main
from models.config import CascadeConfig
from models.evaluate import main as evaluate
from models.resnet import AdaptiveResNet
from tests.cascades import cascade_checkpoint
from tests.conftest import MakeFolders
from tests.hold_out import told_held_out
from tests.models.conftest import MakeNetwork


@pytest.fixture
def data(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "data", ("dark", "light"), each=30, side=16)


@pytest.fixture
def networks(tmp_path: Path, data: Path, make_network: MakeNetwork) -> list[Path]:
    """Two checkpoints whose training held out 20 of the images."""
    training = told_held_out(data, 20)
    paths = [tmp_path / "small.safetensors", tmp_path / "large.safetensors"]
    for path in paths:
        network = make_network().eval()
        save(path, Checkpoint(network.config, network.state_dict(), training))
    return paths


def _combine(networks: list[Path], data: Path, out: Path, *more: str) -> int:
    return main([*map(str, networks), "--data", str(data), "--out", str(out), *more])


def test_cascade_asks_the_next_network_for_its_share_of_the_held_out_images(
    networks: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _combine(networks, data, tmp_path / "out", "--share", "0.3", "--name", "pair") == 0
    told = capsys.readouterr().out
    assert "on 20 images that were held out" in told
    assert told.count("% right") == 3
    path = tmp_path / "out" / "checkpoint.safetensors"
    checkpoint = load(path)
    assert isinstance(checkpoint.config, CascadeConfig)
    assert (checkpoint.config.name, checkpoint.training) == ("pair", told_held_out(data, 20))
    assert evaluate([str(path), "--data", str(data), "--out", str(tmp_path / "pictures")]) == 0
    assert '"network2": 0.3' in capsys.readouterr().out.splitlines()[-1]


def test_cascade_is_never_overwritten(
    networks: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _combine(networks, data, tmp_path, "--share", "0.3") == 0
    assert _combine(networks, data, tmp_path, "--share", "0.4") == 1
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda told: told | {"indices": (0, 1)}, "same images held out"),
        (lambda told: told | {"indices": ()}, "same images held out"),
        (lambda told: told | {"data": "0" * 64}, "same images held out"),
        (lambda _: None, "same images held out"),
    ],
)
def test_networks_that_were_trained_on_other_images_are_refused(
    networks: list[Path],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, object]], dict[str, object]],
    complaint: str,
) -> None:
    large = load(networks[1])
    save(networks[1], replace(large, training={"held_out": change(large.training["held_out"])}))
    assert _combine(networks, data, tmp_path / "out", "--share", "0.3") == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_network_with_other_labels_is_refused(
    networks: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = load(networks[1])
    assert not isinstance(large.config, CascadeConfig)
    save(networks[1], replace(large, config=large.config.with_labels(("light", "dark"))))
    assert _combine(networks, data, tmp_path / "out", "--share", "0.3") == 1
    assert "other labels" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--share", "0.3", "0.1"], ["--share", "often"]])
def test_share_is_asked_for_each_network_but_the_first(
    networks: list[Path], data: Path, tmp_path: Path, more: list[str]
) -> None:
    with pytest.raises(SystemExit):
        _combine(networks, data, tmp_path / "out", *more)


def test_cascade_is_no_member_of_a_cascade(network: AdaptiveResNet) -> None:
    member = Checkpoint(network.config, network.state_dict())
    with pytest.raises(CheckpointError, match="not of cascades"):
        combined([member, cascade_checkpoint(2)], "wrong", (1.0,))


def _logits(count: int, networks: int) -> list[Float32Array]:
    random = np.random.default_rng(0)
    return [(3 * random.standard_normal((count, 4))).astype(np.float32) for _ in range(networks)]


def test_limits_part_the_images_that_are_least_sure_from_the_others() -> None:
    first, second, third = _logits(200, 3)
    one, other = limits([first, second, third], [0.4, 0.1])
    distances = np.diff(np.sort(first, axis=1)[:, -2:])[:, 0]
    asked = distances < one
    assert asked.sum() == 80
    mean = np.log((np.exp(log_probabilities(first)) + np.exp(log_probabilities(second)))[asked])
    assert (np.diff(np.sort(mean, axis=1)[:, -2:])[:, 0] < other).sum() == 20


@pytest.mark.parametrize("shares", [[0.0, 0.0], [1.0, 0.5], [0.2, 0.2], [0.2, 0.3], [float("nan"), 0.1]])
def test_shares_must_fall(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="each share must be"):
        limits(_logits(100, 3), shares)


@pytest.mark.parametrize("shares", [[0.001], [0.999]])
def test_share_of_too_few_images_is_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="100 images are too few"):
        limits(_logits(100, 2), shares)
