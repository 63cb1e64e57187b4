from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import GraphProto

from artifact.agreement import MARGIN_TOLERANCE
from artifact.manifest import ONNX_NAME, TORCHSCRIPT_NAME
from artifact.preprocessing import Float32Array
from export import parity
from export.inference import GatedBlock, InferenceNetwork
from export.parity import ParityError, check_control_flow, verify
from export.torchscript import write_torchscript
from models.macs import count_macs
from models.resnet import AdaptiveResNet
from tests.export import tampering
from tests.export.forms import Exported, onnx_form
from tests.networks import inputs, small_network

pytestmark = pytest.mark.slow

FIRST_GATED = "stage1_block2"


def test_untouched_artifact_is_verified_on_every_image(
    network: AdaptiveResNet, artifact: Path, images: Float32Array
) -> None:
    verification = verify(network, artifact, images)
    assert verification.images == 12
    # In each of 2 runtimes: 12 images in 4 scenarios, one alone of each of 2 batches, and 8 against singles.
    assert verification.gates_compared + verification.gates_within_tolerance == 4 * 2 * (12 * 4 + 2 + 8)
    assert verification.gates_within_tolerance < 20
    assert 0 < verification.largest_margin_difference < 1e-4
    assert 0 < verification.largest_logit_difference < 1e-4


@pytest.mark.parametrize(
    "name", ["stem.0.weight", "stage2_block1.residual.2.weight", "stage2_block1.shortcut.0.bias", "classifier.bias"]
)
def test_changed_weight_is_refused(network: AdaptiveResNet, copy: Path, images: Float32Array, name: str) -> None:
    with tampering.edited(copy) as graph:
        tampering.change_weight(graph, name, lambda values: values + np.float32(0.02))
    with pytest.raises(ParityError, match=r"ONNX.* a (logit|margin) differs by"):
        verify(network, copy, images)


def test_gate_that_decides_otherwise_is_refused(network: AdaptiveResNet, copy: Path, images: Float32Array) -> None:
    with tampering.edited(copy) as graph:
        tampering.change_weight(graph, f"{FIRST_GATED}.gate.margin.weight", lambda values: -values)
    with pytest.raises(ParityError, match=r"ONNX.* gates decide differently"):
        verify(network, copy, images)


def test_margin_that_no_offset_can_overcome_is_told(artifact: Path, images: Float32Array) -> None:
    network = small_network()
    gate = next(block.gate for block in network.blocks.values() if block.gate is not None)
    with torch.no_grad():
        gate.fc2.bias.copy_(torch.tensor([3e4, 0.0]))
    with pytest.raises(ParityError, match=r"a gate has a margin of 3e\+04, which no offset overcomes"):
        check_control_flow(network, artifact, images[:1])


def test_swapped_branches_are_refused(network: AdaptiveResNet, copy: Path, images: Float32Array) -> None:
    with tampering.edited(copy) as graph:
        tampering.swap_branches(tampering.gated_block(graph, FIRST_GATED))
    with pytest.raises(ParityError, match="ONNX"):
        verify(network, copy, images)


@pytest.mark.parametrize(
    ("compute", "complaint"),
    [
        (lambda graph: tampering.compute_always(graph, FIRST_GATED, keep_if=False), "3 branches for 4 gated blocks"),
        (lambda graph: tampering.compute_always(graph, FIRST_GATED, keep_if=True), r"ONNX spends \d+ MACs"),
        (lambda graph: tampering.compute_closed_ones_of_a_mixed_batch(graph, FIRST_GATED), r"ONNX spends \d+ MACs"),
    ],
    ids=["no branch", "an empty branch", "in mixed batches"],
)
def test_onnx_graph_that_computes_what_it_should_skip_is_refused(
    network: AdaptiveResNet, copy: Path, images: Float32Array, compute: Callable[[GraphProto], None], complaint: str
) -> None:
    offsets = np.tile(np.array([0, 1, -1], np.float32), 4)
    before = onnx_form(copy / ONNX_NAME)(images, offsets)
    with tampering.edited(copy) as graph:
        compute(graph)
    # The answers are right, so only counting can tell.
    for right, tampered in zip(before, onnx_form(copy / ONNX_NAME)(images, offsets), strict=True):
        np.testing.assert_allclose(tampered, right, atol=1e-4)
    with pytest.raises(ParityError, match=complaint):
        verify(network, copy, images)


class _ComputesAlways(GatedBlock):
    def forward(self, x: torch.Tensor, gate_offset: torch.Tensor, margins: list[torch.Tensor]) -> torch.Tensor:
        margin = self.gate(x)
        margins.append(margin)
        opened = (margin + gate_offset > self.gate_threshold).to(x.dtype)[:, None, None, None]
        return torch.relu(self.shortcut(x) + opened * self.residual(x))


class _ComputesAllOfAMixedBatch(GatedBlock):
    def forward(self, x: torch.Tensor, gate_offset: torch.Tensor, margins: list[torch.Tensor]) -> torch.Tensor:
        margin = self.gate(x)
        margins.append(margin)
        opened = (margin + gate_offset > self.gate_threshold).to(x.dtype)[:, None, None, None]
        if bool(opened.any()):
            return torch.relu(self.shortcut(x) + opened * self.residual(x))
        return torch.relu(self.shortcut(x))


@pytest.mark.parametrize("wasteful", [_ComputesAlways, _ComputesAllOfAMixedBatch])
def test_torchscript_that_computes_what_it_should_skip_is_refused(
    network: AdaptiveResNet, copy: Path, images: Float32Array, wasteful: type[GatedBlock]
) -> None:
    serving = InferenceNetwork(network)
    for block in serving.blocks:
        if isinstance(block, GatedBlock):
            block.__class__ = wasteful
    write_torchscript(serving, copy / TORCHSCRIPT_NAME)
    with pytest.raises(ParityError, match=r"TorchScript spends \d+ MACs"):
        verify(network, copy, images)


@pytest.mark.parametrize("changes", [{}, {"target_rates": (0.5,) * 5}, {"labels": ("ant", "bee")}])
def test_torchscript_of_another_network_is_refused(
    network: AdaptiveResNet, copy: Path, images: Float32Array, changes: dict[str, object]
) -> None:
    write_torchscript(InferenceNetwork(small_network(seed=1, **changes)), copy / TORCHSCRIPT_NAME)
    with pytest.raises(ParityError, match="TorchScript"):
        verify(network, copy, images)


@pytest.mark.parametrize("name", [ONNX_NAME, TORCHSCRIPT_NAME])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"\xff" * 4096])
def test_damaged_file_is_refused(
    network: AdaptiveResNet, copy: Path, images: Float32Array, name: str, damage: Callable[[bytes], bytes]
) -> None:
    (copy / name).write_bytes(damage((copy / name).read_bytes()))
    with pytest.raises(ParityError, match=name):
        verify(network, copy, images)


def test_graph_with_another_threshold_is_refused(network: AdaptiveResNet, artifact: Path, images: Float32Array) -> None:
    # Its margins are right, so what tells is where its images went afterwards.
    with pytest.raises(ParityError, match="differs by"):
        verify(network, artifact, images, gate_threshold=0.5)


@pytest.mark.parametrize(
    ("distance", "nudge"), [(0.0, 0.0), (1e-4, -2e-4), (-1e-4, 2e-4)], ids=["exactly at", "just above", "just below"]
)
def test_margin_near_its_threshold_may_fall_either_way(tmp_path: Path, distance: float, nudge: float) -> None:
    network = small_network()
    images, zeros = inputs(network, 12), np.zeros(12, np.float32)
    with torch.inference_mode():
        threshold = float(network(torch.from_numpy(images)).margins[5, 0]) - distance
    exported = Exported(network, tmp_path, gate_threshold=threshold)
    with tampering.edited(tmp_path) as graph:
        tampering.change_weight(graph, f"{FIRST_GATED}.gate.margin.bias", lambda bias: bias + np.float32(nudge))
    if nudge:
        decisions = [
            exported.is_open(run(images, zeros)[1], zeros) for run in (exported.eager, onnx_form(tmp_path / ONNX_NAME))
        ]
        assert [decision[5, 0] for decision in decisions] == [distance > 0, nudge > 0]
    assert verify(network, tmp_path, images, threshold).gates_within_tolerance > 0


@pytest.mark.parametrize(("share", "is_refused"), [(0.5, False), (1.5, True)])
def test_margin_may_be_off_by_the_tolerance_and_no_more(
    network: AdaptiveResNet, copy: Path, images: Float32Array, share: float, is_refused: bool
) -> None:
    with torch.inference_mode():
        largest = max(1.0, float(network(torch.from_numpy(images)).margins[:, 0].abs().max()))
    # What is allowed grows with the largest margin of a batch, which is at least 1 and at most that of all images.
    nudge = share * MARGIN_TOLERANCE * (largest if is_refused else 1)
    with tampering.edited(copy) as graph:
        tampering.change_weight(graph, f"{FIRST_GATED}.gate.margin.bias", lambda bias: bias + np.float32(nudge))
    if not is_refused:
        assert verify(network, copy, images).largest_margin_difference > 0.1 * MARGIN_TOLERANCE
        return
    with pytest.raises(ParityError, match=r"a margin differs by 0\.00"):
        verify(network, copy, images)


def test_large_margins_and_logits_are_compared_in_proportion(tmp_path: Path) -> None:
    network = small_network()
    with torch.no_grad():
        for name in network.gated_blocks:
            network.blocks[name].gate.fc2.weight.mul_(2e3)
            network.blocks[name].gate.fc2.bias.mul_(2e3)
        network.classifier.weight.mul_(2e3)
    exported, images, zeros = Exported(network, tmp_path), inputs(network, 12), np.zeros(12, np.float32)
    expected, actual = exported.eager(images, zeros), exported.forms["ONNX"](images, zeros)
    # Rounded as float32 rounds, that is far beyond what would be allowed for small numbers.
    assert np.abs(actual[1] - expected[1]).max() > MARGIN_TOLERANCE
    assert verify(network, tmp_path, images).largest_margin_difference < 0.1 * MARGIN_TOLERANCE


@pytest.mark.parametrize("count", ["_count_onnx", "_count_torchscript"])
def test_runtimes_spend_what_the_open_gates_cost_and_no_more(exported: Exported, count: str) -> None:
    images = inputs(exported.network, 8)
    offsets = np.array([0, 1, -1, 0.3, -0.3, 1e4, -1e4, 0], np.float32)
    macs = count_macs(exported.network.config)
    residuals = np.array([macs.blocks[name].residual for name in exported.network.gated_blocks], np.int64)
    closed = ~exported.is_open(exported.eager(images, offsets)[1], offsets)
    expected = 8 * (macs.ungated - macs.classifier) - (closed @ residuals).sum()
    assert getattr(parity, count)(exported.folder, images, offsets) == expected


def test_control_flow_of_every_kind_of_network_is_accepted(exported: Exported) -> None:
    check_control_flow(exported.network, exported.folder, inputs(exported.network, 1))
    assert verify(exported.network, exported.folder, inputs(exported.network, 8)).images == 8
