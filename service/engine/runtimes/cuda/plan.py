"""What a device is to do for a batch: memory at known places, and launches of kernels on it, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from service.engine.runtimes.cuda.network import Network

ElementType = Literal["fp32", "fp16", "bf16"]
"""Of features and of the weights of convolutions, as Triton names it."""
SIZES: Mapping[ElementType, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
"""In bytes."""

# Of everything in memory, in bytes. Kernels are compiled for addresses that are multiples of 16.
_ALIGNMENT = 256


@dataclass(frozen=True)
class Kernel:
    """A kernel to compile.

    Attributes:
        function: its name, in `kernels` or `image_kernel`.
        signature: names and types of what is given at the launch, such as ("source", "*fp16").
        constants: names and values of the other parameters.
        warps: of a program.
        stages: of loads in flight.
    """

    function: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, int], ...]
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class Address:
    """A place in one of a plan's memories.

    Attributes:
        memory: "constants" or "work".
        offset: in bytes.
    """

    memory: Literal["constants", "work"]
    offset: int

    def __add__(self, distance: int) -> Address:
        return Address(self.memory, self.offset + distance)


@dataclass(frozen=True)
class Launch:
    """One kernel, run by many programs.

    Attributes:
        kernel: to run.
        programs: how many.
        arguments: in the order of the kernel's signature.
    """

    kernel: Kernel
    programs: int
    arguments: tuple[Address | int | float, ...]


@dataclass
class Constants:
    """What never changes: weights, and tables of them.

    Attributes:
        size: in bytes, so far.
    """

    size: int = 0
    _values: list[tuple[int, npt.NDArray[Any]]] = field(default_factory=list)

    def add(self, values: npt.NDArray[Any]) -> Address:
        """Where these are to be."""
        address = Address("constants", self.size)
        self._values.append((self.size, values))
        self.size = _aligned(self.size + values.nbytes)
        return address

    def content(self) -> npt.NDArray[np.uint8]:
        """All of it."""
        whole = np.zeros(self.size, np.uint8)
        for offset, values in self._values:
            whole[offset : offset + values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
        return whole


@dataclass
class Work:
    """Memory that is written and read again in each run.

    Attributes:
        size: in bytes, so far.
    """

    size: int = 0

    def reserve(self, size: int) -> Address:
        """A place for so many bytes."""
        address = Address("work", self.size)
        self.size = _aligned(self.size + size)
        return address


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class Doors:
    """Where a batch goes in and its answers come out, for the largest batch.

    Attributes:
        header: how many images there are, and 1 where they are pixels; two int32.
        offsets: (N,) fp32, one for each image.
        images: (N, side, side, 3) uint8, or (N, 3, side, side) fp32, one after the other.
        logits: (N, classes) fp32.
        margins: (N, gates) fp32.
    """

    header: Address
    offsets: Address
    images: Address
    logits: Address
    margins: Address


def doors(work: Work, network: Network, largest: int) -> Doors:
    """The first places of a plan's memory, the same in all plans of a network."""
    return Doors(
        header=work.reserve(8),
        offsets=work.reserve(4 * largest),
        images=work.reserve(12 * network.side**2 * largest),
        logits=work.reserve(4 * len(network.classifier_bias) * largest),
        margins=work.reserve(4 * max(1, network.gates) * largest),
    )


class Plan(Protocol):
    """One way to run a network.

    Attributes:
        largest: batch there is memory for.
        doors: of the network.
        constants: that the launches read.
        work: that they write and read.
    """

    largest: int
    doors: Doors
    constants: Constants
    work: Work

    def launches(self, batch: int) -> Iterator[Launch]:
        """What runs a batch of at most so many images."""


def encoded(values: npt.NDArray[np.float32], element_type: ElementType) -> npt.NDArray[Any]:
    """Values in another precision, bf16 as its bits, rounded to the nearest and to even where there are two."""
    if element_type == "fp16":
        return values.astype(np.float16)
    if element_type == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.ascontiguousarray(values, np.float32)
