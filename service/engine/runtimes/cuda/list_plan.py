"""Lists: every layer is a launch for the whole batch, and reads from a list which images it is for. See `kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from artifact.preprocessing import Float32Array, Preprocessing
from service.engine.errors import DeviceOutOfMemory
from service.engine.runtimes.cuda.loading import Loading
from service.engine.runtimes.cuda.network import Block, Convolution, Gate, Network
from service.engine.runtimes.cuda.plan import (
    SIZES,
    Address,
    Constants,
    ElementType,
    Kernel,
    Launch,
    Plan,
    Work,
    doors,
    encoded,
)

IMAGE_CHANNELS = 4
"""Of an image on the device; those after the third are zeros."""
# Pixels that one program sums at a time, channels that it sums, and classes that it answers for.
_ROWS, _CHANNELS, _CLASSES = 32, 64, 32
# Of a tile in the matrix products: its most rows, columns and depth.
_MOST_ROWS, _MOST_COLUMNS, _MOST_DEPTH = 128, 128, 64
# So much shared memory have processors whose matrix units read from it, sm_90 and later; others need registers for
# that, and with deep tiles have too few.
_OF_HOPPER = 200_000
# Values of a tile whose programs need eight warps, lest registers be too few: with matrix units that read from shared
# memory, with others, and in fp32, which has none.
_LARGE, _LARGE_FROM_REGISTERS, _LARGE_IN_FP32 = 128 * 128, 128 * 64, 64 * 64
# Kernels count in int32.
_MOST_VALUES = 2**31 - 1
_NO_RELU, _RELU, _RELU_OF_CLOSED = range(3)


@dataclass(frozen=True)
class _Weights:
    weight: Address
    bias: Address


@dataclass(frozen=True)
class _Images:
    """Which images a layer is for.

    Attributes:
        count: address of how many.
        listed: whether only those that are listed.
    """

    count: Address
    listed: bool


class ListPlan(Plan):
    """See `Plan`.

    Args:
        network: to run.
        preprocessing: of its images.
        threshold: a gate is open where its margin and the image's offset are above it.
        element_type: of features.
        largest: batch.
        shared_bytes: memory that the programs of a processor share, in bytes.

    Raises:
        DeviceOutOfMemory: a batch is too large to be counted.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        threshold: float,
        element_type: ElementType,
        largest: int,
        shared_bytes: int,
    ) -> None:
        self._network, self._threshold, self._element_type = network, float(np.float32(threshold)), element_type
        self._shared_bytes = shared_bytes
        self.largest = largest
        self.constants, work = Constants(), Work()
        self.work = work
        self.doors = doors(work, network, largest)
        gates = max(1, network.gates)
        arguments = (network, preprocessing, element_type, self.doors, largest, gates, work, self.constants)
        self._loading = Loading(*arguments)
        self._listed, self._is_open = work.reserve(4 * largest), work.reserve(4 * largest)
        self._stem = self._features(network.stem.out_side**2 * network.stem.out_channels)
        inputs, inner = _largest_features(network)
        # A projection reads the features that a block gets while it writes those that the block gives.
        self._streams = [self._features(inputs) for _ in range(2)]
        self._inner = [self._features(size) for size in inner]
        self._means = work.reserve(4 * network.classifier_weight.shape[1] * largest)
        self._weights = {id(each): self._kept(each) for each in _convolutions(network)}
        self._gates = {id(block): self._kept_gate(block.gate) for block in network.blocks if block.gate}
        self._classifier = [
            self.constants.add(values) for values in (network.classifier_weight, network.classifier_bias)
        ]

    def launches(self, batch: int) -> Iterator[Launch]:
        """See `Plan`."""
        network, every = self._network, _Images(self.doors.header, listed=False)
        yield self._loading.launch(batch)
        features, side = self._stem, network.stem.out_side
        yield self._convolve(network.stem, self._loading.images, features, every, batch, relu=_RELU)
        if network.pool:
            yield self._pool(batch)
            features, side = self._streams[0], network.features_side
        position = 0
        for block in network.blocks:
            images = every
            if block.gate:
                images = _Images(self._loading.counters + 4 * position, listed=True)
                yield self._decide(block, features, side, position, batch)
                position += 1
            target = features
            if block.shortcut:
                target = self._streams[1] if features == self._streams[0] else self._streams[0]
                relu = _RELU_OF_CLOSED if block.gate else _NO_RELU
                yield self._convolve(block.shortcut, features, target, every, batch, relu=relu)
            yield from self._residual(block, features, target, images, batch)
            features, side = target, block.convolutions[-1].out_side
        yield from self._tail(features, side, batch)

    def _residual(
        self, block: Block, features: Address, target: Address, images: _Images, batch: int
    ) -> Iterator[Launch]:
        *others, last = block.convolutions
        source, gathers = features, True
        for number, each in enumerate(others):
            inner = self._inner[number]
            yield self._convolve(each, source, inner, images, batch, relu=_RELU, gathers=gathers)
            source, gathers = inner, False
        yield self._convolve(last, source, target, images, batch, relu=_RELU, scatters=True, adds=True)

    def _convolve(
        self,
        convolution: Convolution,
        source: Address,
        target: Address,
        images: _Images,
        batch: int,
        relu: int,
        gathers: bool = False,
        scatters: bool = False,
        adds: bool = False,
    ) -> Launch:
        window, out_pixels = convolution.window, convolution.out_side**2
        rows, columns, depth = self._tile(convolution, batch * out_pixels)
        large = _LARGE if self._shared_bytes >= _OF_HOPPER else _LARGE_FROM_REGISTERS
        large = _LARGE_IN_FP32 if self._element_type == "fp32" else large
        tile_bytes = (rows + columns) * depth * SIZES[self._element_type]
        kernel = Kernel(
            "convolve",
            self._signature(
                source="*", weight="*", bias="*fp32", target="*", listed="*i32", count="*i32", is_open="*i32"
            ),
            _sorted(
                SIDE=convolution.side,
                OUT=convolution.out_side,
                C=convolution.channels,
                K=convolution.out_channels,
                KERNEL=window.kernel,
                STRIDE=window.stride,
                PADDING=window.padding,
                GATHERS=int(gathers or not images.listed),
                SCATTERS=int(scatters or not images.listed),
                ADDS=int(adds),
                RELU=relu,
                LISTED=int(images.listed),
                ROWS=rows,
                COLUMNS=columns,
                DEPTH=depth,
            ),
            warps=8 if rows * columns >= large else 4,
            stages=max(1, min(4 if convolution.channels >= _MOST_DEPTH else 3, self._shared_bytes // tile_bytes)),
        )
        kept = self._weights[id(convolution)]
        tiles = -(-batch * out_pixels // rows) * (convolution.out_channels // columns)
        arguments = (source, kept.weight, kept.bias, target, self._listed, images.count, self._is_open)
        return Launch(kernel, tiles, arguments)

    def _tile(self, convolution: Convolution, pixels: int) -> tuple[int, int, int]:
        """Rows, columns and depth: small where there are few pixels, lest a few programs have all the work."""
        # Addresses take registers: with larger windows wide tiles have too few, and spill.
        columns = min(
            convolution.out_channels,
            _MOST_COLUMNS if convolution.window.kernel == 1 and self._element_type != "fp32" else 64,
        )
        rows = _MOST_ROWS if pixels >= _MOST_ROWS * 64 else 64
        deep = self._element_type != "fp32" and self._shared_bytes >= _OF_HOPPER
        depth = min(_MOST_DEPTH if deep else 32, max(16, convolution.channels))
        return rows, columns, depth if convolution.channels >= 16 else 32

    def _pool(self, batch: int) -> Launch:
        network = self._network
        assert network.pool is not None
        window, stem = network.pool, network.stem
        out = network.features_side
        constants = _sorted(
            SIDE=stem.out_side,
            OUT=out,
            C=stem.out_channels,
            KERNEL=window.kernel,
            STRIDE=window.stride,
            PADDING=window.padding,
            BLOCK=_ROWS,
        )
        kernel = Kernel("max_pool", self._signature(source="*", target="*", header="*i32"), constants)
        return Launch(kernel, -(-batch * out**2 // _ROWS), (self._stem, self._streams[0], self.doors.header))

    def _decide(self, block: Block, features: Address, side: int, position: int, batch: int) -> Launch:
        gate = block.gate
        assert gate is not None
        hidden, channels = gate.hidden_weight.shape
        kernel = Kernel(
            "decide",
            self._signature(
                features="*",
                **dict.fromkeys(("hidden_weight", "hidden_bias", "margin_weight", "margin_bias", "offsets"), "*fp32"),
                header="*i32",
                threshold="fp32",
                margins="*fp32",
                **dict.fromkeys(("listed", "count", "is_open"), "*i32"),
                position="i32",
                gates="i32",
            ),
            _sorted(
                PIXELS=side**2,
                C=channels,
                HIDDEN=hidden,
                ROWS=_ROWS,
                CHANNELS=min(channels, _CHANNELS),
            ),
        )
        ways = self.doors
        arguments: tuple[Address | int | float, ...] = (
            features,
            *self._gates[id(block)],
            ways.offsets,
            ways.header,
            self._threshold,
            ways.margins,
            self._listed,
            self._loading.counters + 4 * position,
            self._is_open,
            position,
            self._network.gates,
        )
        return Launch(kernel, batch, arguments)

    def _tail(self, features: Address, side: int, batch: int) -> Iterator[Launch]:
        classes, channels = self._network.classifier_weight.shape
        header = self.doors.header
        block = min(channels, _CHANNELS)
        average = Kernel(
            "average",
            self._signature(features="*", means="*fp32", header="*i32"),
            _sorted(PIXELS=side**2, C=channels, ROWS=_ROWS, CHANNELS=block),
        )
        yield Launch(average, batch * (channels // block), (features, self._means, header))
        classify = Kernel(
            "classify",
            self._signature(means="*fp32", weight="*fp32", bias="*fp32", logits="*fp32", header="*i32"),
            _sorted(C=channels, CLASSES=classes, CHANNELS=block, BLOCK=_CLASSES),
        )
        arguments: tuple[Address | int | float, ...] = (self._means, *self._classifier, self.doors.logits, header)
        yield Launch(classify, batch * -(-classes // _CLASSES), arguments)

    def _signature(self, **types: str) -> tuple[tuple[str, str], ...]:
        """Names and types; "*" stands for a pointer to features."""
        return tuple((name, f"*{self._element_type}" if kind == "*" else kind) for name, kind in types.items())

    def _features(self, elements: int) -> Address:
        if elements * self.largest > _MOST_VALUES:
            raise DeviceOutOfMemory("features of a batch have more values than kernels count")
        return self.work.reserve(elements * SIZES[self._element_type] * self.largest)

    def _kept(self, convolution: Convolution) -> _Weights:
        weight = self.constants.add(encoded(convolution.weight, self._element_type))
        return _Weights(weight, self.constants.add(convolution.bias))

    def _kept_gate(self, gate: Gate) -> tuple[Address, ...]:
        parts: tuple[Float32Array, ...] = (
            gate.hidden_weight,
            gate.hidden_bias,
            gate.margin_weight,
            gate.margin_bias,
        )
        return tuple(self.constants.add(np.ascontiguousarray(part)) for part in parts)


def _convolutions(network: Network) -> Iterator[Convolution]:
    yield network.stem
    for block in network.blocks:
        yield from block.convolutions
        if block.shortcut:
            yield block.shortcut


def _largest_features(network: Network) -> tuple[int, list[int]]:
    """Most values of an image that a block gets or gives; and that each convolution inside one gives but the last."""
    outer = [network.features_side**2 * network.stem.out_channels]
    inner: list[int] = [0] * max(len(block.convolutions) - 1 for block in network.blocks)
    for block in network.blocks:
        sizes = [each.out_side**2 * each.out_channels for each in block.convolutions]
        outer.append(sizes[-1])
        inner = [max(*pair) for pair in zip(inner, sizes[:-1], strict=True)]
    return max(outer), inner


def _sorted(**constants: int) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(constants.items()))
