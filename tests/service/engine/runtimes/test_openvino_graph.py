from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("openvino", reason="needs OpenVINO")

import openvino
from onnx import numpy_helper

from artifact.manifest import ONNX_NAME
from service.engine.runtimes.base import Precision
from service.engine.runtimes.openvino_graph import Chain, ChainBuilder, Gate, Part
from service.engine.runtimes.portable_graph import read_portable_graph
from tests.service.engine.runtimes.artifacts import Exported, exported_shape
from tests.service.engine.runtimes.test_openvino import needs_bf16

BuildChain = Callable[..., Chain]


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Five blocks, the first without a gate, the third and the last with projections."""
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


@pytest.fixture
def build(wide: Exported) -> BuildChain:
    def chain(precision: Precision = "fp32", exported: Exported = wide) -> Chain:
        graph = read_portable_graph(exported.folder / ONNX_NAME, exported.manifest)
        return ChainBuilder(graph, precision).build()

    return chain


def _layers(model: openvino.CompiledModel, kind: str) -> list[str]:
    """The precisions in which a compiled model runs its layers of one kind."""
    infos = [layer.get_rt_info() for layer in model.get_runtime_model().get_ops()]
    return [info["runtimePrecision"].value for info in infos if info["layerType"].value == kind]


def test_each_block_is_a_step_with_what_a_closed_gate_leaves_to_do(wide: Exported, build: BuildChain) -> None:
    chain = build()
    blocks = wide.manifest.blocks
    assert [step.gate is not None for step in chain.steps] == [block.gated for block in blocks]
    # Without a projection, features pass a closed gate as they are.
    skipped = [step.skipped is not None for step in chain.steps]
    assert skipped == [block.gated and block.shortcut_macs > 0 for block in blocks]
    assert chain.classifier_weight.shape == (6, 64)
    assert chain.classifier_bias.shape == (6,)


def test_convolutions_of_a_block_are_in_its_executed_part_only(wide: Exported, build: BuildChain) -> None:
    chain = build()
    assert len(_layers(chain.stem.body, "Convolution")) == 1
    for step, block in zip(chain.steps, wide.manifest.blocks, strict=True):
        projections = int(block.shortcut_macs > 0)
        assert len(_layers(step.executed.body, "Convolution")) == 2 + projections
        if step.skipped:
            assert len(_layers(step.skipped.body, "Convolution")) == projections == 1


def test_projection_without_its_block_has_the_features_of_the_block(build: BuildChain) -> None:
    for step in build().steps:
        if step.skipped:
            assert step.skipped.body.output(0).shape == step.executed.body.output(0).shape
            assert step.skipped.pool.output(0).shape == step.executed.pool.output(0).shape


def _parts(chain: Chain) -> list[Part]:
    steps = [part for step in chain.steps for part in (step.executed, step.skipped) if part]
    return [chain.stem, *steps]


def test_features_of_fp32_stay_fp32_in_planes(build: BuildChain) -> None:
    parts = _parts(build("fp32"))
    for part in parts:
        assert part.body.input(0).element_type == part.body.output(0).element_type == openvino.Type.f32
        assert set(_layers(part.body, "Convolution")) == {"f32"}
    assert list(parts[0].body.output(0).shape) == [1, 16, 16, 16]
    assert list(parts[-1].body.output(0).shape) == [1, 64, 4, 4]


@needs_bf16
def test_features_of_bf16_are_bf16_by_pixels_and_pooled_to_fp32(build: BuildChain) -> None:
    parts = _parts(build("bf16"))
    assert parts[0].body.input(0).element_type == openvino.Type.f32  # images come as they are
    for part in parts:
        assert part.body.output(0).element_type == openvino.Type.bf16
        assert part.pool.output(0).element_type == openvino.Type.f32
        assert set(_layers(part.body, "Convolution")) == {"bf16"}
    for part in parts[1:]:
        assert part.body.input(0).element_type == openvino.Type.bf16
    assert list(parts[-1].body.output(0).shape) == [1, 4, 4, 64]
    assert list(parts[-1].pool.output(0).shape) == [1, 64]


def test_pool_is_the_mean_of_each_channel_over_the_pixels(build: BuildChain) -> None:
    stem = build().stem
    random = np.random.default_rng(0)
    features = random.standard_normal((1, 16, 16, 16)).astype(np.float32)
    (pooled,) = stem.pool([features]).values()
    np.testing.assert_allclose(pooled, features.mean(axis=(2, 3)), atol=1e-6)


def test_margin_of_a_gate_is_its_two_layers() -> None:
    random = np.random.default_rng(0)
    hidden, margin = random.standard_normal((16, 8)).astype(np.float32), random.standard_normal(16).astype(np.float32)
    bias, pooled = random.standard_normal(16).astype(np.float32), random.standard_normal(8).astype(np.float32)
    gate = Gate(hidden, bias, margin, np.float32(0.25))
    before = bias.copy()
    expected = np.maximum(hidden @ pooled + bias, 0) @ margin + 0.25
    assert gate.margin(pooled) == pytest.approx(expected, rel=1e-5)
    assert isinstance(gate.margin(pooled), np.float32)
    np.testing.assert_array_equal(gate.hidden_bias, before)  # it is used again for the next image
    assert (np.maximum(hidden @ pooled + bias, 0) == 0).any()


def test_gates_have_the_weights_of_the_file(wide: Exported, build: BuildChain) -> None:
    weights = read_portable_graph(wide.folder / ONNX_NAME, wide.manifest).weights
    gates = [step.gate for step in build().steps if step.gate]
    assert len(gates) == len(wide.network.gated_blocks) == 4
    for name, gate in zip(wide.network.gated_blocks, gates, strict=True):
        stored = {
            part: numpy_helper.to_array(weights[f"{name}.gate.{part}"])
            for part in ("hidden.weight", "hidden.bias", "margin.weight", "margin.bias")
        }
        np.testing.assert_array_equal(gate.hidden_weight, stored["hidden.weight"])
        np.testing.assert_array_equal(gate.hidden_bias, stored["hidden.bias"])
        np.testing.assert_array_equal(gate.margin_weight[None], stored["margin.weight"])
        np.testing.assert_array_equal([gate.margin_bias], stored["margin.bias"])
