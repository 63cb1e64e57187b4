"""Where the buffers of a program lie in its scratch memory, and which of them share a region."""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.layout import Layout, nchwc

# In words of 32 bits: every region begins at a cache line, so that no two share one.
_LINE = ALIGNMENT // 4


@dataclass(frozen=True)
class Buffer:
    """A region of the scratch memory for features, and another for their sums.

    Attributes:
        layout: of the features.
        offset: of the first word of the features.
        sums: offset of the sums of each channel over all pixels, where a gate or the classifier needs them.
        unit: what 1 in the buffer stands for.
    """

    layout: Layout
    offset: int
    sums: int = 0
    unit: float = 1.0

    def pooled(self) -> Buffer:
        """The sums as features of a single pixel."""
        return Buffer(nchwc(self.layout.channels, 1, 1, 0, self.layout.lanes), self.sums)


class Arena:
    """One block of memory, whose regions are reserved one after the other and never given back.

    Attributes:
        size: of the whole, in words.
    """

    def __init__(self) -> None:
        self.size = 0

    def reserve(self, size: int) -> int:
        """The offset of a new region of so many words."""
        offset = self.size
        self.size += -(-size // _LINE) * _LINE
        return offset


class BufferPlan:
    """Assigns buffers to regions of an arena.

    Args:
        arena: the scratch memory.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._shared: dict[tuple[str, Layout], Buffer] = {}

    def allocate(self, layout: Layout) -> Buffer:
        """A buffer that shares memory with no other."""
        return Buffer(layout, self._arena.reserve(layout.size), self._arena.reserve(layout.channels))

    def shared(self, use: str, layout: Layout) -> Buffer:
        """The buffer of all features of one use and one layout, which are never live at the same time.

        The key is the whole layout, its number format included: features in another format are larger or smaller, so
        that they would reach beyond the region, and are zero at other offsets of their border.
        """
        key = use, layout
        if key not in self._shared:
            self._shared[key] = self.allocate(layout)
        return self._shared[key]
