"""One program an image: for small images in large batches, for which launches would take the most time.

See `image_kernel`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from artifact.preprocessing import Float32Array, Preprocessing
from service.engine.runtimes.cuda.loading import Loading
from service.engine.runtimes.cuda.network import Block, Convolution, Network
from service.engine.runtimes.cuda.plan import SIZES, Constants, ElementType, Kernel, Launch, Plan, Work, doors, encoded
from service.engine.runtimes.portable_graph import UnknownGraph
from service.engine.runtimes.window import Window

IMAGE_CHANNELS = 16
"""Of an image on the device; those after the third are zeros."""
# Programs for each multiprocessor, so that one computes while another waits for memory.
_PROGRAMS = 3
# Of a tile in the matrix products: its most rows and its most depth. Classes that are answered for at a time.
_ROWS, _DEPTH, _CLASSES = 128, 16, 16
# What a gate without a network's weights would have.
_HIDDEN = 16
# Values at the end of one block's vectors up to the next's; Triton reads 16 at a time.
_GRAIN = 16
_SAME, _HALVING, _PROJECTION = Window(3, 1, 1), Window(3, 2, 1), Window(1, 2, 0)


class ImagePlan(Plan):
    """See `Plan`.

    Args:
        network: to run, whose images have `IMAGE_CHANNELS`.
        preprocessing: of its images.
        threshold: a gate is open where its margin and the image's offset are above it.
        element_type: of features.
        largest: batch.
        processors: of the device.

    Raises:
        UnknownGraph: it is for networks of another shape.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        threshold: float,
        element_type: ElementType,
        largest: int,
        processors: int,
    ) -> None:
        stages = _stages(network)
        self.largest = largest
        self.constants, self.work = Constants(), Work()
        self.doors = doors(self.work, network, largest)
        arguments = (network, preprocessing, element_type, self.doors, largest, 1, self.work, self.constants)
        self._loading = Loading(*arguments)
        self._programs = _PROGRAMS * processors
        side, width = network.side, network.stem.out_channels
        scratch = self.work.reserve(11 * side**2 * width // 4 * SIZES[element_type] * self._programs)
        weights, vectors, table = _packed(network)
        ways, add = self.doors, self.constants.add
        self._arguments = (
            self._loading.images,
            ways.offsets,
            ways.header,
            self._loading.counters,
            float(np.float32(threshold)),
            add(encoded(weights, element_type)),
            add(vectors),
            add(table),
            add(encoded(network.stem.weight, element_type)),
            add(network.stem.bias),
            add(network.classifier_weight),
            add(network.classifier_bias),
            scratch,
            ways.logits,
            ways.margins,
            max(1, network.gates),
            *stages,
        )
        features, numbers = f"*{element_type}", "*fp32"
        self._kernel = Kernel(
            "run_images",
            (
                ("images", features),
                ("offsets", numbers),
                ("header", "*i32"),
                ("queue", "*i32"),
                ("threshold", "fp32"),
                ("weights", features),
                ("vectors", numbers),
                ("table", "*i32"),
                ("stem_weight", features),
                ("stem_bias", numbers),
                ("classifier_weight", numbers),
                ("classifier_bias", numbers),
                ("scratch", features),
                ("logits", numbers),
                ("margins", numbers),
                ("gates", "i32"),
                ("first", "i32"),
                ("second", "i32"),
                ("third", "i32"),
            ),
            (
                ("SIDE", side),
                ("WIDTH", width),
                ("CLASSES", len(network.classifier_bias)),
                ("CLASS_BLOCK", _CLASSES),
                ("HIDDEN", _hidden(network)),
                ("ROWS", _ROWS),
                ("DEPTH", _DEPTH),
            ),
            # With four a thread needs more registers than it may have, and in fp32 with eight more still.
            warps=4 if element_type == "fp32" else 8,
        )

    def launches(self, batch: int) -> Iterator[Launch]:
        """See `Plan`."""
        yield self._loading.launch(batch)
        yield Launch(self._kernel, min(batch, self._programs), self._arguments)


def _stages(network: Network) -> tuple[int, int, int]:
    """Blocks of the first stage, and of the others but for the first of each.

    Raises:
        UnknownGraph: the network is not of the shape that the kernel is for.
    """
    side, width = network.side, network.stem.out_channels
    shapes = [(_window_shape(network.stem), IMAGE_CHANNELS, width)]
    expected: list[object] = [((_SAME, side), IMAGE_CHANNELS, width)]
    counts, stage = [0, 0, 0], 0
    for block in network.blocks:
        if block.shortcut:
            stage += 1
            shapes.append((_window_shape(block.shortcut), block.shortcut.channels, block.shortcut.out_channels))
            expected.append(((_PROJECTION, side), width, 2 * width))
            shapes += [(_window_shape(each), each.channels, each.out_channels) for each in block.convolutions]
            expected += [((_HALVING, side), width, 2 * width), ((_SAME, side // 2), 2 * width, 2 * width)]
            side, width = side // 2, 2 * width
        elif stage < len(counts):
            counts[stage] += 1
            shapes += [(_window_shape(each), each.channels, each.out_channels) for each in block.convolutions]
            expected += 2 * [((_SAME, side), width, width)]
    if network.pool or stage != 2 or shapes != expected or network.side & (network.side - 1):
        raise UnknownGraph("this kernel is for networks of three stages for small images")
    return counts[0], counts[1], counts[2]


def _window_shape(convolution: Convolution) -> tuple[Window, int]:
    return convolution.window, convolution.side


def _hidden(network: Network) -> int:
    return next((len(block.gate.hidden_bias) for block in network.blocks if block.gate), _HIDDEN)


def _packed(network: Network) -> tuple[Float32Array, Float32Array, np.ndarray[tuple[int, int], np.dtype[np.int32]]]:
    """The weights and the vectors of all blocks, and the table that says where they are."""
    weights: list[Float32Array] = []
    vectors: list[Float32Array] = []
    rows, at_weight, at_vector, gate = [], 0, 0, 0
    for block in network.blocks:
        rows.append((block.gate is not None, at_weight, at_vector, gate))
        gate += block.gate is not None
        convolutions = [block.shortcut, *block.convolutions] if block.shortcut else [*block.convolutions]
        weight = np.concatenate([each.weight.reshape(-1) for each in convolutions])
        vector = np.concatenate([*(each.bias for each in convolutions), *_gate_vectors(block)])
        vector = np.pad(vector, (0, -len(vector) % _GRAIN))
        weights.append(weight)
        vectors.append(vector)
        at_weight, at_vector = at_weight + len(weight), at_vector + len(vector)
    return np.concatenate(weights), np.concatenate(vectors), np.array(rows, np.int32)


def _gate_vectors(block: Block) -> list[Float32Array]:
    gate = block.gate
    if gate is None:
        return []
    return [gate.hidden_weight.reshape(-1), gate.hidden_bias, gate.margin_weight, gate.margin_bias]
