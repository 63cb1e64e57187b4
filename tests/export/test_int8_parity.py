from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from artifact.manifest import INT8_NAME, read_manifest
from artifact.preprocessing import Float32Array
from export.int8_parity import check_skipping, int8_runner, verify_int8
from export.parity import ParityError
from models.resnet import AdaptiveResNet
from tests.export import tampering
from tests.networks import confident_network, exported_int8_once, inputs


@pytest.fixture(scope="module")
def network() -> AdaptiveResNet:
    return confident_network()


@pytest.fixture(scope="module")
def images(network: AdaptiveResNet) -> Float32Array:
    """Those that the artifact was verified on."""
    return inputs(network, 40)


@pytest.fixture
def path(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the int8 graph to tamper with."""
    return Path(shutil.copy(exported_int8_once(tmp_path_factory.getbasetemp()) / INT8_NAME, tmp_path / INT8_NAME))


def test_untouched_graph_agrees_as_the_manifest_tells(
    network: AdaptiveResNet, path: Path, images: Float32Array, tmp_path_factory: pytest.TempPathFactory
) -> None:
    agreement = verify_int8(network, int8_runner(path), images, calibration_images=100)
    assert agreement == read_manifest(exported_int8_once(tmp_path_factory.getbasetemp())).int8
    assert (agreement.images, agreement.calibration_images) == (40, 100)
    assert 0.95 * 40 * 4 < agreement.gates_compared <= 40 * 4
    assert agreement.gates_equal >= 0.98
    assert agreement.predictions_equal >= 0.95


@pytest.mark.parametrize(
    ("weight", "complaint"),
    [("classifier.weight", "of the predictions"), ("stage1_block2.gate.margin.weight", "of the gates")],
)
def test_graph_that_answers_otherwise_is_refused(
    network: AdaptiveResNet, path: Path, images: Float32Array, weight: str, complaint: str
) -> None:
    model = onnx.load(path)
    tampering.change_weight(model.graph, weight, lambda values: -values)
    onnx.save(model, path)
    with pytest.raises(ParityError, match=complaint):
        verify_int8(network, int8_runner(path), images, 100)


def test_graph_that_answers_no_numbers_is_refused(network: AdaptiveResNet, path: Path, images: Float32Array) -> None:
    model = onnx.load(path)
    tampering.change_weight(model.graph, "classifier.bias", lambda values: values * np.float32(np.nan))
    onnx.save(model, path)
    with pytest.raises(ParityError, match="not numbers"):
        verify_int8(network, int8_runner(path), images, 100)


def test_graph_that_computes_what_it_should_skip_is_refused(
    network: AdaptiveResNet, path: Path, images: Float32Array
) -> None:
    model = onnx.load(path)
    branch = tampering.branch(tampering.gated_block(model.graph, "stage1_block2"), "else_branch")
    wasted = tampering.branch(tampering.gated_block(model.graph, "stage1_block2"), "then_branch").node[0]
    branch.node.append(wasted)
    branch.node[-1].name = branch.node[-1].output[0] = "wasted"
    onnx.save(model, path)
    # The answers are right, so only counting can tell.
    with pytest.raises(ParityError, match=r"spends \d+ MACs with all gates closed"):
        check_skipping(network, path, images[:1])


def test_damaged_graph_is_refused(network: AdaptiveResNet, path: Path, images: Float32Array) -> None:
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ParityError, match="cannot be opened"):
        verify_int8(network, int8_runner(path), images, 100)
