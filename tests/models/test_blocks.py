from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.blocks import BLOCKS, ResidualBlock

CLOSED, OPEN = -1e9, 1e9

# Of each kind: (input channels, width, stride) with an identity shortcut and with a projection.
IDENTITY = {"basic": (8, 8, 1), "bottleneck": (8, 2, 1)}
PROJECTION = {"basic": (8, 16, 2), "bottleneck": (8, 4, 2)}


@pytest.fixture(params=["basic", "bottleneck"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _block(kind: str, shape: tuple[int, int, int], gate_hidden: int | None = 16) -> ResidualBlock:
    block = BLOCKS[kind](*shape, gate_hidden)
    # The norms' statistics as after some training, so that the shortcut's are not those of a fresh layer.
    block.train()(torch.randn(16, 8, 6, 6))
    return block.eval()


def test_closed_gate_passes_the_input_on(kind: str) -> None:
    block, x = _block(kind, IDENTITY[kind]), torch.randn(5, 8, 6, 6)
    assert torch.equal(block(x, CLOSED)[0], F.relu(x))


def test_closed_gate_still_runs_the_projection(kind: str) -> None:
    block, x = _block(kind, PROJECTION[kind]), torch.randn(5, 8, 6, 6)
    assert isinstance(block.shortcut, nn.Sequential)
    output, decision = block(x, CLOSED)
    assert decision is not None
    assert decision.open.sum() == 0
    assert torch.equal(output, F.relu(block.shortcut(x)))
    assert output.abs().sum() > 0


def test_open_gate_adds_the_residual(kind: str) -> None:
    for shape in (IDENTITY[kind], PROJECTION[kind]):
        block, x = _block(kind, shape), torch.randn(5, 8, 6, 6)
        torch.testing.assert_close(block(x, OPEN)[0], F.relu(block.shortcut(x) + block.residual(x)))


def test_every_image_of_a_batch_goes_its_own_way(kind: str) -> None:
    block, x = _block(kind, PROJECTION[kind]), torch.randn(4, 8, 6, 6)
    output, _ = block(x, torch.tensor([OPEN, CLOSED, CLOSED, OPEN]))
    torch.testing.assert_close(output[[0, 3]], block(x, OPEN)[0][[0, 3]])
    torch.testing.assert_close(output[[1, 2]], block(x, CLOSED)[0][[1, 2]])


def test_block_without_a_gate_always_runs(kind: str) -> None:
    block, x = _block(kind, PROJECTION[kind], gate_hidden=None), torch.randn(5, 8, 6, 6)
    output, decision = block(x, CLOSED)
    assert decision is None
    assert not [name for name in block.state_dict() if "gate" in name]
    torch.testing.assert_close(output, F.relu(block.shortcut(x) + block.residual(x)))


def test_only_a_change_of_shape_makes_a_projection(kind: str) -> None:
    assert isinstance(_block(kind, IDENTITY[kind]).shortcut, nn.Identity)
    in_channels, width, _ = IDENTITY[kind]
    assert isinstance(_block(kind, (in_channels, width, 2)).shortcut, nn.Sequential)
    assert isinstance(_block(kind, (in_channels, 2 * width, 1)).shortcut, nn.Sequential)


def test_stride_halves_the_map_and_expansion_widens_it() -> None:
    x = torch.randn(2, 8, 6, 6)
    assert _block("basic", (8, 16, 2))(x)[0].shape == (2, 16, 3, 3)
    assert _block("bottleneck", (8, 16, 2))(x)[0].shape == (2, 64, 3, 3)


def test_bottleneck_strides_in_its_3x3_convolution() -> None:
    convolutions = [layer for layer in _block("bottleneck", (8, 4, 2)).residual if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(1, 1), (3, 3), (1, 1)]
    assert [layer.stride for layer in convolutions] == [(1, 1), (2, 2), (1, 1)]


def test_gate_looks_at_the_input_of_the_block_not_at_its_output(kind: str) -> None:
    block, x = _block(kind, PROJECTION[kind]), torch.randn(5, 8, 6, 6)
    _, decision = block(x)
    assert decision is not None
    assert block.gate is not None
    assert torch.equal(decision.margin, block.gate(x).margin)


def test_closed_gates_learn_from_what_their_block_would_have_added(kind: str) -> None:
    block = _block(kind, IDENTITY[kind]).train()
    assert block.gate is not None
    nn.init.constant_(block.gate.fc2.bias, 0.0)
    with torch.no_grad():
        block.gate.fc2.bias[0] = 6.0  # the gates of all eight images close
    output, decision = block(torch.randn(8, 8, 6, 6))
    assert decision.open.sum() == 0
    output.sum().backward()
    assert block.gate.fc2.weight.grad is not None
    assert block.gate.fc2.weight.grad.abs().sum() > 0
    for parameter in block.residual.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() == 0
