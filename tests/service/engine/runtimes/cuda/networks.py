"""Networks of the presets with the right shapes, and nothing in them."""

from __future__ import annotations

import numpy as np

from models.config import ModelConfig, preset
from service.engine.runtimes.cuda.network import Block, Convolution, Gate, Network
from service.engine.runtimes.window import Window


def empty_network(name: str, image_channels: int) -> Network:
    """A preset's network."""
    config = preset(name)
    side = config.preprocessing.crop
    large = config.stem == "imagenet"
    window = Window(7, 2, 3) if large else Window(3, 1, 1)
    stem = _convolution(window, side, image_channels, config.stage_widths[0])
    pool = Window(3, 2, 1) if large else None
    side = pool.over(stem.out_side) if pool else stem.out_side
    blocks = _blocks(config, side)
    classes, channels = len(config.labels), blocks[-1].convolutions[-1].out_channels
    weight, bias = np.zeros((classes, channels), np.float32), np.zeros(classes, np.float32)
    return Network(config.preprocessing.crop, stem, pool, tuple(blocks), weight, bias)


def _blocks(config: ModelConfig, side: int) -> list[Block]:
    blocks: list[Block] = []
    bottleneck = config.block == "bottleneck"
    channels = config.stage_widths[0]
    rates = iter(config.target_rates)
    for stage, (count, width) in enumerate(zip(config.stage_blocks, config.stage_widths, strict=True)):
        for number in range(count):
            stride = 2 if stage and not number else 1
            out = 4 * width if bottleneck else width
            shapes = (
                [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
                if bottleneck
                else [(channels, width, 3, stride), (width, width, 3, 1)]
            )
            convolutions, inner = [], side
            for source, target, kernel, step in shapes:
                convolutions.append(_convolution(Window(kernel, step, kernel // 2), inner, source, target))
                inner = convolutions[-1].out_side
            projects = stride > 1 or channels != out
            shortcut = _convolution(Window(1, stride, 0), side, channels, out) if projects else None
            gate = _gate(channels) if next(rates) < 1 else None
            blocks.append(Block(gate, shortcut, tuple(convolutions)))
            side, channels = inner, out
    return blocks


def _convolution(window: Window, side: int, channels: int, out: int) -> Convolution:
    weight = np.zeros((window.kernel**2 * channels, out), np.float32)
    return Convolution(window, side, weight, np.zeros(out, np.float32))


def _gate(channels: int) -> Gate:
    hidden = np.zeros((16, channels), np.float32)
    return Gate(hidden, np.zeros(16, np.float32), np.zeros(16, np.float32), np.zeros(1, np.float32))
