from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto

from artifact.manifest import INPUT_NAMES, ONNX_NAME, OUTPUT_NAMES
from export.parity import count_onnx_macs
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import blocked_graph as module
from service.engine.runtimes.blocked_graph import blocked_graph
from service.engine.runtimes.onnx import open_session
from service.engine.runtimes.portable_graph import PortableGraph, UnknownGraph, read_portable_graph
from tests.networks import inputs, small_network
from tests.service.engine.runtimes.artifacts import BLOCKABLE, Exported, export, exported_shape

needs_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only on x86 is the layout known to be blocked"
)


@pytest.fixture(params=BLOCKABLE)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), request.param)


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Five blocks, the first without a gate, the third and the last with projections."""
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


def _portable(exported: Exported) -> PortableGraph:
    return read_portable_graph(exported.folder / ONNX_NAME, exported.manifest)


@needs_x86
def test_closed_gate_saves_its_blocks_convolutions(exported: Exported, tmp_path: Path) -> None:
    manifest = exported.manifest
    onnx.save(blocked_graph(_portable(exported), manifest.gate_threshold), str(tmp_path / "blocked.onnx"))
    every = manifest.ungated_macs - manifest.classifier_macs
    residuals = np.array([block.macs for block in manifest.blocks])
    image = inputs(exported.network, 1)
    spent = {}
    for offset in (1e4, 0.0, 0.7, -0.7, -1e4):
        offsets = np.array([offset], np.float32)
        closed = ~manifest.executed(exported.portable.run(image, offsets)[1], offsets)[0]
        spent[offset] = count_onnx_macs(tmp_path / "blocked.onnx", image, offsets)
        assert spent[offset] == every - residuals[closed].sum()
    gated = sum(block.macs for block in manifest.blocks if block.gated)
    assert (spent[1e4], spent[-1e4]) == (every, every - gated)


@needs_x86
def test_each_gated_block_is_a_branch_and_each_weight_there_once(exported: Exported) -> None:
    graph = blocked_graph(_portable(exported), 0.0).graph
    branches = [node for node in graph.node if node.op_type == "If"]
    assert [node.name.split("/")[0] for node in branches] == exported.network.gated_blocks
    names = [weight.name for weight in graph.initializer]
    assert len(set(names)) == len(names)
    used = {name for node in _nodes(graph) for name in node.input}
    assert set(names) <= used
    convolutions = sum(parameter.dim() == 4 for parameter in exported.network.parameters())
    # A projection stands in both branches, for where the block is skipped it does the ReLU, too.
    gated = [exported.network.blocks[name] for name in exported.network.gated_blocks]
    convolutions += sum(parameter.dim() == 4 for block in gated for parameter in block.shortcut.parameters())
    assert sum(node.op_type == "Conv" for node in _nodes(graph)) == convolutions


def _nodes(graph: GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


@needs_x86
def test_inputs_and_outputs_are_the_portable_graphs_for_one_image(wide: Exported) -> None:
    model = blocked_graph(_portable(wide), 0.0)
    assert tuple(value.name for value in model.graph.input) == INPUT_NAMES
    assert tuple(value.name for value in model.graph.output) == OUTPUT_NAMES
    session = open_session(model.SerializeToString(), optimisation="ORT_ENABLE_BASIC")
    image = inputs(wide.network, 1)
    logits, margins = session.run(OUTPUT_NAMES, {"images": image})  # without an offset it is 0
    expected = wide.portable.run(image, np.zeros(1, np.float32))
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(margins, expected[1], rtol=0, atol=1e-4)


def test_network_without_gates_is_left_to_the_portable_graph(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = exported_shape(tmp_path_factory.getbasetemp(), "wide and plain")
    with pytest.raises(UnknownGraph, match="without gates"):
        blocked_graph(_portable(plain), 0.0)


def _unblocked(straight: ModelProto) -> ModelProto:
    """What ONNX Runtime makes of a network where it has no blocked layout."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        onnxruntime.InferenceSession(
            straight.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
        return onnx.load(options.optimized_model_filepath)


def test_processor_without_a_blocked_layout_runs_identity_shortcuts_in_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_optimised", _unblocked)
    network = small_network(stage_blocks=(3,), stage_widths=(16,), target_rates=(0.5, 1.0, 0.5))
    folder = export(network, tmp_path / "identity")
    exported = Exported.opened(network, folder)
    model = blocked_graph(_portable(exported), 0.0)
    assert not any(node.domain == "com.microsoft.nchwc" for node in _nodes(model.graph))
    session = open_session(model.SerializeToString(), optimisation="ORT_ENABLE_BASIC")
    image = inputs(network, 1)
    for offset in (0.0, 0.5, -0.5, 1e4, -1e4):
        offsets = np.full(1, offset, np.float32)
        answer = session.run(OUTPUT_NAMES, {"images": image, "gate_offset": offsets})
        for actual, expected in zip(answer, exported.portable.run(image, offsets), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


def test_projections_that_swallowed_the_sum_are_refused(monkeypatch: pytest.MonkeyPatch, wide: Exported) -> None:
    monkeypatch.setattr(module, "_optimised", _unblocked)
    with pytest.raises((UnknownGraph, RuntimeUnavailable)):
        open_session(blocked_graph(_portable(wide), 0.0).SerializeToString(), optimisation="ORT_ENABLE_BASIC")


@needs_x86
@pytest.mark.parametrize("what", ["renamed", "dropped", "unnamed"])
def test_optimised_network_that_cannot_be_cut_is_told(
    monkeypatch: pytest.MonkeyPatch, wide: Exported, what: str
) -> None:
    optimise = module._optimised

    def tampered(straight: ModelProto) -> ModelProto:
        model = optimise(straight)
        nodes = [node for node in model.graph.node if node.name.startswith("stage1_block2/")]
        for node in nodes:
            if what == "dropped":
                model.graph.node.remove(node)
            else:
                node.name = "" if what == "unnamed" else f"fused {node.name}"
        return model

    monkeypatch.setattr(module, "_optimised", tampered)
    with pytest.raises(UnknownGraph, match="lost a block"):
        blocked_graph(_portable(wide), 0.0)


@needs_x86
def test_gate_threshold_moves_every_decision(wide: Exported) -> None:
    image, zero = inputs(wide.network, 1), np.zeros(1, np.float32)
    for threshold in (-3.0, 0.25, 3.0):
        model = blocked_graph(_portable(wide), threshold)
        session = open_session(model.SerializeToString(), optimisation="ORT_ENABLE_BASIC")
        logits, _ = session.run(OUTPUT_NAMES, {"images": image, "gate_offset": zero})
        # Raising the threshold is lowering every margin.
        expected, _ = wide.portable.run(image, np.full(1, -threshold, np.float32))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
