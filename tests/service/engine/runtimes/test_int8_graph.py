from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, helper, numpy_helper

from artifact.manifest import INT8_NAME
from export.calibration import calibrate, convolutions, output_name, residual_name, shortcut_name
from export.inference import InferenceNetwork
from export.int8_graph import quantised_weights, write_int8
from service.engine.runtimes.int8_graph import Int8Convolution, read_int8_graph
from service.engine.runtimes.portable_graph import UnknownGraph
from tests.networks import SIDE, inputs, small_network
from tests.service.engine.runtimes.artifacts import BLOCKABLE


@pytest.mark.parametrize("shape", ["all gated", "ungated in between", "imagenet stem, bottlenecks"])
def test_what_was_exported_is_read_back(tmp_path: Path, shape: str) -> None:
    network = small_network(**BLOCKABLE[shape])
    inference, names = InferenceNetwork(network, 0.0), list(network.blocks)
    quantisations = calibrate(inference, names, inputs(network, 20))
    write_int8(inference, names, SIDE, quantisations, tmp_path / INT8_NAME)
    graph = read_int8_graph(tmp_path / INT8_NAME)

    seen = set()
    unit = quantisations["stem"].scale
    for name, block in zip(names, inference.blocks, strict=True):
        layers = {residual_name(name, number): layer for number, layer in enumerate(convolutions(block.residual))}
        inner = [quantisations[residual_name(name, number)].scale for number in range(len(layers))]
        scales = dict(zip(layers, [unit, *inner], strict=False))
        for layer in convolutions(block.shortcut):
            layers[shortcut_name(name)], scales[shortcut_name(name)] = layer, unit
        for layer_name, layer in layers.items():
            expected = quantised_weights(layer.weight.detach().numpy(), layer.bias.detach().numpy(), scales[layer_name])
            _assert_convolution(graph.convolutions[layer_name], *expected, scales[layer_name])
        seen |= {*layers}
        unit = quantisations[output_name(name)].scale
        assert graph.output_scales[name] == pytest.approx(unit)
    assert seen == {name for name in graph.convolutions if not name.startswith("stem")}
    assert [*graph.output_scales] == names


def _assert_convolution(
    found: Int8Convolution, weights: np.ndarray, scales: np.ndarray, bias: np.ndarray, input_scale: float
) -> None:
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_array_equal(found.weight_scales, scales)
    np.testing.assert_array_equal(found.bias, bias)
    assert found.input_scale == pytest.approx(input_scale)
    assert (found.weights.dtype, found.bias.dtype) == (np.int8, np.int32)


@pytest.mark.parametrize("scale", [0, -0.1, np.nan, np.inf])
@pytest.mark.parametrize("of", ["stem.scale", "/output.scale"])
def test_scale_that_is_none_is_refused(tmp_path: Path, of: str, scale: float) -> None:
    network = small_network()
    inference, names = InferenceNetwork(network, 0.0), list(network.blocks)
    write_int8(inference, names, SIDE, calibrate(inference, names, inputs(network, 20)), tmp_path / INT8_NAME)
    model = onnx.load(str(tmp_path / INT8_NAME))
    changed = [tensor for tensor in model.graph.initializer if tensor.name.endswith(of)]
    assert changed
    for tensor in changed:
        tensor.CopyFrom(numpy_helper.from_array(np.array(scale, np.float32), tensor.name))
    onnx.save(model, str(tmp_path / INT8_NAME))
    with pytest.raises(UnknownGraph, match=f"{INT8_NAME} cannot be taken apart: .* has a scale of"):
        read_int8_graph(tmp_path / INT8_NAME)


def _conv_without_weights() -> GraphProto:
    node = helper.make_node("QLinearConv", [f"input{number}" for number in range(9)], ["y"])
    return helper.make_graph([node], "graph", [], [])


@pytest.mark.parametrize(
    "content",
    [b"\xff not a model", helper.make_model(_conv_without_weights()).SerializeToString()],
    ids=["no model", "weights that are missing"],
)
def test_file_that_was_not_exported_here_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INT8_NAME).write_bytes(content)
    with pytest.raises(UnknownGraph, match="cannot be taken apart"):
        read_int8_graph(tmp_path / INT8_NAME)


def test_model_without_convolutions_has_none(tmp_path: Path) -> None:
    onnx.save(helper.make_model(helper.make_graph([], "graph", [], [])), str(tmp_path / INT8_NAME))
    graph = read_int8_graph(tmp_path / INT8_NAME)
    assert (graph.convolutions, graph.output_scales) == ({}, {})
