from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from artifact.agreement import Agreement
from artifact.manifest import INT8_NAME
from export.calibration import calibrate
from export.inference import InferenceNetwork
from export.int8_graph import quantised_weights, write_int8
from export.int8_parity import check_skipping
from export.parity import eager_runner, gating_of
from models.resnet import AdaptiveResNet
from tests.export.conftest import KINDS
from tests.export.forms import Form, onnx_form, onnx_session
from tests.networks import confident_network, inputs, small_network

SHAPES = KINDS | {
    "imagenet stem, basic": {
        "stem": "imagenet",
        "stage_blocks": (2, 1),
        "stage_widths": (8, 8),
        "target_rates": (0.5,) * 3,
    },
    "ungated in between": {"target_rates": (0.5, 1.0, 1.0, 0.5, 1.0)},
}


def _written(network: AdaptiveResNet, folder: Path, gate_threshold: float = 0.0) -> Path:
    serving, names = InferenceNetwork(network, gate_threshold), list(network.blocks)
    quantisations = calibrate(serving, names, inputs(network, 100, seed=5))
    write_int8(serving, names, network.config.input_size, quantisations, folder / INT8_NAME)
    return folder / INT8_NAME


def _one_by_one(path: Path) -> Form:
    run = onnx_form(path)

    def run_each(images: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = [run(images[row : row + 1], offsets[row : row + 1]) for row in range(len(images))]
        logits, margins = (np.concatenate(outputs) for outputs in zip(*answers, strict=True))
        return logits, margins

    return run_each


@pytest.mark.parametrize("shape", SHAPES)
def test_graph_decides_and_predicts_nearly_as_the_network(tmp_path: Path, shape: str) -> None:
    network = small_network(seed=3, **SHAPES[shape])
    run, eager, images = _one_by_one(_written(network, tmp_path)), eager_runner(network), inputs(network, 60)
    for offset in (0.0, 0.3, 1e4, -1e4):
        offsets = np.full(60, offset, np.float32)
        agreement = Agreement()
        agreement.compare("int8", eager(images, offsets), run(images, offsets), offsets, gating_of(network))
        assert agreement.equal_gates > 0.95
        assert agreement.equal_predictions > 0.85
        assert agreement.same_path > 45  # of 60; fewest where sums of 8-bit products saturate, without VNNI
    check_skipping(network, tmp_path / INT8_NAME, images[:1])


def test_gates_open_above_their_threshold(tmp_path: Path) -> None:
    network = confident_network()
    run, images = _one_by_one(_written(network, tmp_path, gate_threshold=0.5)), inputs(network, 40)
    zeros = np.zeros(40, np.float32)
    agreement = Agreement()
    agreement.compare(
        "int8", eager_runner(network, 0.5)(images, zeros), run(images, zeros), zeros, gating_of(network, 0.5)
    )
    assert agreement.low_precision_problem() is None


def test_offset_may_be_left_out(tmp_path: Path) -> None:
    network = confident_network()
    session = onnx_session(_written(network, tmp_path))
    image = inputs(network, 1)
    expected = session.run(None, {"images": image, "gate_offset": np.zeros(1, np.float32)})
    for one, other in zip(session.run(None, {"images": image}), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_network_without_gates_has_no_margins(tmp_path: Path) -> None:
    network = small_network(**KINDS["plain"])
    logits, margins = onnx_form(_written(network, tmp_path))(inputs(network, 1), np.zeros(1, np.float32))
    assert logits.shape == (1, 6)
    assert margins.shape == (1, 0)


def test_graph_takes_a_single_image(tmp_path: Path) -> None:
    network = small_network()
    run = onnx_form(_written(network, tmp_path))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(inputs(network, 2), np.zeros(2, np.float32))


def test_each_weight_is_in_the_file_once(tmp_path: Path) -> None:
    graph = onnx.load(_written(small_network(), tmp_path)).graph
    names = [weight.name for weight in graph.initializer]
    assert len(names) == len(set(names))
    branches = [attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute]
    assert len(branches) == 2 * 4
    assert not any(branch.initializer for branch in branches)


def test_weights_are_rounded_by_channel(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((5, 3, 2, 2)).astype(np.float32) * np.array([1e-3, 1, 2, 4, 100])[:, None, None, None]
    bias = rng.standard_normal(5).astype(np.float32)
    whole, scales, whole_bias = quantised_weights(weights.astype(np.float32), bias, input_scale=0.02)
    assert (whole.dtype, scales.dtype, whole_bias.dtype) == (np.int8, np.float32, np.int32)
    assert np.abs(whole).max(axis=(1, 2, 3)).tolist() == [127] * 5
    assert (np.abs(whole * scales[:, None, None, None] - weights) <= 0.501 * scales[:, None, None, None]).all()
    np.testing.assert_allclose(whole_bias * scales * 0.02, bias, atol=0.02 * scales.max())


def test_bias_of_a_channel_without_weights_fits() -> None:
    weights = np.zeros((3, 1, 1, 1), np.float32)
    weights[1] = 1e-20
    bias = np.array([3.0, -5.0, 0.0], np.float32)
    whole, scales, whole_bias = quantised_weights(weights, bias, input_scale=0.02)
    assert not whole.any()
    np.testing.assert_allclose(whole_bias * scales.astype(np.float64) * 0.02, bias, rtol=1e-6)
