"""How each tensor of an int8 graph is kept in 8 bits: found by running images along the paths their gates choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artifact.preprocessing import Float32Array
from export.inference import GatedBlock, InferenceNetwork, UngatedBlock

IMAGES, STEM = "images", "stem"

_BATCH = 50
# Measured on trained networks: ranges that hold every value are coarser, and those that cut off more lose accuracy.
_WITHIN = 0.9999


@dataclass(frozen=True)
class Quantisation:
    """A real number x is kept as the 8 bits round(x / scale) + zero_point, clamped to 0 ... 255.

    Attributes:
        name: of the tensor, or of the first of those that share it.
    """

    name: str
    scale: float
    zero_point: int


def residual_name(block: str, number: int) -> str:
    """The output of convolution `number` of a block's residual branch, after its ReLU where it has one."""
    return f"{block}/residual/{number}"


def shortcut_name(block: str) -> str:
    """The output of a block's projection."""
    return f"{block}/shortcut"


def output_name(block: str) -> str:
    """The output of a block, whether it runs or is skipped."""
    return f"{block}/output"


def convolutions(branch: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a stem, a residual branch or a shortcut, in order."""
    return [layer for layer in branch.children() if isinstance(layer, nn.Conv2d)]


def calibrate(network: InferenceNetwork, block_names: Sequence[str], images: Float32Array) -> dict[str, Quantisation]:
    """Find how to keep the images, the stem, and each block's convolutions, projection and output, by their names.

    Blocks with an identity shortcut hand their input on as it is, so all outputs from one projection to the next are
    kept alike. These and the outputs of a ReLU have the zero point 0: clamping is their ReLU.

    Args:
        network: whose gates decide, without an offset, which images a block's residual branch is measured on.
        block_names: of its blocks, in order.
        images: (N, 3, H, W) preprocessed images.
    """
    ranges = _Ranges()
    for start in range(0, len(images), _BATCH):
        _measure(network, block_names, torch.from_numpy(images[start : start + _BATCH]), ranges)
    found = {name: _quantisation(name, *ranges.of(name)) for name in ranges.names()}
    for stream in _streams(network, block_names):
        highest = max(ranges.of(name)[1] for name in stream)
        found |= dict.fromkeys(stream, _quantisation(stream[0], 0.0, highest))
    return found


def _streams(network: InferenceNetwork, block_names: Sequence[str]) -> list[list[str]]:
    """The outputs of the stem and the blocks, in groups that identity shortcuts connect."""
    streams = [[STEM]]
    for name, block in zip(block_names, network.blocks, strict=True):
        if not isinstance(block.shortcut, nn.Identity):
            streams.append([])
        streams[-1].append(output_name(name))
    return streams


class _Ranges:
    """Ranges of tensors, as means over batches weighted by their images."""

    def __init__(self) -> None:
        # By name, and by whether the gates let the tensor be computed: sums of low and high, and the images.
        self._sums: dict[tuple[str, bool], np.ndarray] = {}

    def note(self, name: str, values: Tensor, executed: bool = True) -> None:
        """Note the values (N, ...) of one batch."""
        low, high = np.quantile(values.numpy().ravel(), [1 - _WITHIN, _WITHIN])
        weighted = np.array([low, high, 1.0]) * len(values)
        self._sums[name, executed] = self._sums.get((name, executed), np.zeros(3)) + weighted

    def names(self) -> set[str]:
        """All that was noted."""
        return {name for name, _ in self._sums}

    def of(self, name: str) -> tuple[float, float]:
        """Lowest and highest value, from what was executed if anything was."""
        low, high, images = self._sums[name, (name, True) in self._sums]
        return float(low / images), float(high / images)


@torch.inference_mode()
def _measure(network: InferenceNetwork, block_names: Sequence[str], x: Tensor, ranges: _Ranges) -> None:
    """Run a batch (N, 3, H, W) and note every tensor's range."""
    ranges.note(IMAGES, x)
    x = network.stem(x)
    ranges.note(STEM, x)
    for name, block in zip(block_names, network.blocks, strict=True):
        assert isinstance(block, GatedBlock | UngatedBlock)
        shortcut = block.shortcut(x)
        if shortcut is not x:
            ranges.note(shortcut_name(name), shortcut)
        is_open = torch.ones(len(x), dtype=torch.bool)  # (N,)
        if isinstance(block, GatedBlock):
            is_open = block.gate(x) > block.gate_threshold
        executed = bool(is_open.any())
        # A block that no image executes is measured on all of them: another gate offset may open it.
        chosen = is_open if executed else ~is_open
        residual = _measured_residual(name, block.residual, x[chosen], executed, ranges)
        if executed:
            shortcut = shortcut.index_add(0, is_open.nonzero().squeeze(1), residual)
        x = F.relu(shortcut)
        ranges.note(output_name(name), x)


def _measured_residual(block: str, residual: nn.Module, x: Tensor, executed: bool, ranges: _Ranges) -> Tensor:
    layers = convolutions(residual)
    for number, layer in enumerate(layers):
        x = layer(x)
        if number < len(layers) - 1:
            x = F.relu(x)
        ranges.note(residual_name(block, number), x, executed)
    return x


def _quantisation(name: str, low: float, high: float) -> Quantisation:
    """What keeps 0 and the range low ... high."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return Quantisation(name, scale, round(-low / scale))
