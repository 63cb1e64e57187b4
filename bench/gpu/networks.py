"""Networks of random weights for the speed of plans, without PyTorch and without an artifact.

Each image has a number from 0 to 1, its phase. It is the first channel of all pixels, and no block changes it, so that
every gate sees it. A gate's margin tells how near the phase is to the gate's own, around a circle. So margins are even
between 0 and 1: one offset opens any share of the gates of every image, other gates for other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from artifact.gating import Decisions
from artifact.preprocessing import Float32Array
from models.config import ModelConfig
from service.engine.runtimes.cuda.network import Block, Convolution, Gate, Network
from service.engine.runtimes.window import Window

# Multiples of it fill the unit interval evenly whatever their number.
_GOLDEN = 0.6180339887498949
_COLOURS = 3

Normal = Callable[..., np.ndarray]


def random_network(config: ModelConfig, image_channels: int) -> Network:
    """The network of a preset, the same for every number of channels that its images have on the device."""
    normal = np.random.default_rng(0).standard_normal
    side = config.preprocessing.crop
    large = config.stem == "imagenet"
    window = Window(7, 2, 3) if large else Window(3, 1, 1)
    stem = _stem(normal, window, side, image_channels, config.stage_widths[0])
    pool = Window(3, 2, 1) if large else None
    blocks = tuple(_blocks(normal, config, pool.over(stem.out_side) if pool else stem.out_side))
    channels, classes = blocks[-1].convolutions[-1].out_channels, len(config.labels)
    weight = _drawn(normal, (classes, channels), channels)
    return Network(side, stem, pool, blocks, weight, np.zeros(classes, np.float32))


def phased_images(count: int, side: int) -> Float32Array:
    """Noise with the phases of so many images, (N, 3, side, side): what tensors of the network's input are."""
    images = np.random.default_rng(1).standard_normal((count, _COLOURS, side, side)).astype(np.float32)
    phases = np.arange(count) * _GOLDEN % 1
    images[:, 0] = (np.round(phases * 1024) / 1024)[:, None, None]  # no precision rounds these
    return images


def offset_for(open_share: float) -> float:
    """The gate offset that opens that share of the gates, at a threshold of 0."""
    return 1.0 if open_share == 1 else open_share - 1


def opened_gates(margins: Float32Array, open_share: float) -> Decisions:
    """Which gates of each image are open, (N, G), by their margins."""
    opened: Decisions = margins + np.float32(offset_for(open_share)) > 0
    return opened


def ungated_macs(network: Network) -> int:
    """Multiply-accumulates of an image without gates, those with zeros that pad its channels left out."""
    convolutions = [each for block in network.blocks for each in (*block.convolutions, block.shortcut) if each]
    stem = network.stem.out_side**2 * network.stem.window.kernel**2 * _COLOURS * network.stem.out_channels
    return stem + sum(map(_macs, convolutions)) + network.classifier_weight.size


def mac_ratio(network: Network, opened: Decisions) -> float:
    """Of the MACs of the ungated network, how many these images need, gates included."""
    skipped, gates = np.zeros(len(opened)), 0
    gated = [block for block in network.blocks if block.gate]
    for block, opens in zip(gated, opened.T, strict=True):
        assert block.gate is not None
        gates += block.gate.hidden_weight.size + 2 * len(block.gate.hidden_bias)
        skipped += ~opens * sum(map(_macs, block.convolutions))
    whole = ungated_macs(network)
    return float(whole + gates - skipped.mean()) / whole


def _macs(convolution: Convolution) -> int:
    return convolution.out_side**2 * convolution.weight.size


def _stem(normal: Normal, window: Window, side: int, channels: int, out: int) -> Convolution:
    taps = window.kernel**2
    weight = np.zeros((taps, channels, out), np.float32)
    weight[:, :_COLOURS] = _drawn(normal, (taps, _COLOURS, out), taps * _COLOURS / 2)
    weight[:, :, 0] = 0
    weight[taps // 2, 0, 0] = 1
    return Convolution(window, side, weight.reshape(-1, out), np.zeros(out, np.float32))


def _blocks(normal: Normal, config: ModelConfig, side: int) -> Iterator[Block]:
    bottleneck = config.block == "bottleneck"
    channels, number = config.stage_widths[0], 0
    for stage, (count, width) in enumerate(zip(config.stage_blocks, config.stage_widths, strict=True)):
        for position in range(count):
            stride = 2 if stage and not position else 1
            out = 4 * width if bottleneck else width
            shapes = (
                [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
                if bottleneck
                else [(channels, width, 3, stride), (width, width, 3, 1)]
            )
            convolutions, inner = [], side
            for source, target, kernel, step in shapes:
                convolutions.append(_convolution(normal, Window(kernel, step, kernel // 2), inner, source, target))
                inner = convolutions[-1].out_side
            last = convolutions[-1].weight
            last /= np.sqrt(config.block_count)  # what all blocks add stays of the size of what came in
            last[:, 0] = 0
            shortcut = None
            if stride > 1 or channels != out:
                shortcut = _convolution(normal, Window(1, stride, 0), side, channels, out)
                shortcut.weight[:] /= np.sqrt(2)
                shortcut.weight[:, 0] = 0
                shortcut.weight[0, 0] = 1
            gate = None
            if config.target_rates[number] < 1:
                gate = _gate(normal, channels, config.gate_hidden, number * _GOLDEN % 1)
            yield Block(gate, shortcut, tuple(convolutions))
            side, channels, number = inner, out, number + 1


def _convolution(normal: Normal, window: Window, side: int, channels: int, out: int) -> Convolution:
    depth = window.kernel**2 * channels
    return Convolution(window, side, _drawn(normal, (depth, out), depth / 2), np.zeros(out, np.float32))


def _gate(normal: Normal, channels: int, units: int, own: float) -> Gate:
    """Its margin is 1 - 2 distance(phase, own) around the circle: lines between 0, the farthest point and its own."""
    hidden = _drawn(normal, (units, channels), channels)
    bias, weight = np.zeros(units, np.float32), np.zeros(units, np.float32)
    farthest, first = (own + 0.5) % 1, 2.0 if own < 0.5 else -2.0
    hidden[:3], bias[1:3] = 0, (-own, -farthest)
    hidden[:3, 0] = 1
    weight[:3] = first, -4, 4  # how much the slope changes there
    at_zero = 1 - 2 * min(own, 1 - own)
    return Gate(hidden, bias, weight, np.array([at_zero], np.float32))


def _drawn(normal: Normal, shape: tuple[int, ...], of: float) -> Float32Array:
    values: Float32Array = (normal(shape) / np.sqrt(of)).astype(np.float32)
    return values
