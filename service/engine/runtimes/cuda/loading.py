"""The first launch of every plan: images as they come become features, and counters zero."""

from __future__ import annotations

import numpy as np

from artifact.preprocessing import Preprocessing
from service.engine.runtimes.cuda.network import Network
from service.engine.runtimes.cuda.plan import SIZES, Address, Constants, Doors, ElementType, Kernel, Launch, Work

# Pixels that one program loads.
_PIXELS = 256


def loading_kernel(element_type: ElementType, side: int, channels: int, block: int) -> Kernel:
    """The kernel that loads images of this side as features of so many channels, a block of pixels each program."""
    return Kernel(
        "load_images",
        (
            ("pixels", "*u8"),
            ("tensors", "*fp32"),
            ("header", "*i32"),
            ("means", "*fp32"),
            ("scales", "*fp32"),
            ("images", f"*{element_type}"),
            ("counts", "*i32"),
            ("counters", "i32"),
        ),
        (("SIDE", side), ("CHANNELS", channels), ("BLOCK", block)),
    )


class Loading:
    """Plans it.

    Args:
        network: whose stem says how many channels images have on the device.
        preprocessing: of its images.
        element_type: of features.
        doors: where images come in.
        largest: batch.
        counters: how many are set to zero.
        work, constants: where it has its own places.

    Attributes:
        images: where it leaves (N, side, side, channels).
        counters: where they are, int32.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        element_type: ElementType,
        doors: Doors,
        largest: int,
        counters: int,
        work: Work,
        constants: Constants,
    ) -> None:
        side, channels = network.side, network.stem.channels
        self.images = work.reserve(side**2 * channels * SIZES[element_type] * largest)
        self.counters = work.reserve(4 * counters)
        colours = [constants.add(np.array([*values, 0], np.float32)) for values in preprocessing.mean_and_scale()]
        ways = (doors.images, doors.images, doors.header)
        self._arguments: tuple[Address | int | float, ...] = (*ways, *colours, self.images, self.counters, counters)
        block = min(_PIXELS, 1 << (side**2 - 1).bit_length())
        self._blocks = -(-(side**2) // block)
        self._kernel = loading_kernel(element_type, side, channels, block)

    def launch(self, batch: int) -> Launch:
        """What loads a batch of at most so many images."""
        return Launch(self._kernel, batch * self._blocks, self._arguments)
