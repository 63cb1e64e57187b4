"""How many bytes of request bodies are held at a time, over all requests: what came in and is not answered yet."""

from __future__ import annotations

import gc
import sys
from types import TracebackType
from typing import Self

from service.engine.errors import Overloaded
from service.engine.operating_system import release_memory, resident_bytes

# There is no telling when others will be answered; this is about as long as it takes.
_RETRY_AFTER_S = 1.0
# Far more than the process takes up and lets go of while images are small.
_MUCH_BYTES = 16_777_216
# After how many looks at the memory it is tried again to give back what could not be given back before.
_SOON, _LATE = 8, 256


class BodyBudget:
    """An account of bytes. Only the event loop's thread uses it.

    Attributes:
        capacity: most bytes held.
        held: bytes held now.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._least_resident = self._left_resident = sys.maxsize  # ever, and since memory was last given back
        self._pause = self._looks_until_next = _SOON

    def tidy(self) -> None:
        """Give memory that was needed for a while back to the system; to be called about once a second."""
        resident = resident_bytes()
        self._least_resident = min(self._least_resident, resident)
        self._left_resident = min(self._left_resident, resident)
        has_grown = resident - self._left_resident > _MUCH_BYTES
        # What was needed when it was tried last may not be any more.
        self._looks_until_next -= 1
        is_due = resident - self._least_resident > _MUCH_BYTES and self._looks_until_next <= 0
        if (has_grown or is_due) and self.held < _MUCH_BYTES:
            gc.collect()  # an error may hold on to the frames it came through, and so to what they read
            release_memory()
            self._left_resident = resident_bytes()
            helped = resident - self._left_resident > _MUCH_BYTES
            self._pause = _SOON if has_grown or helped else min(2 * self._pause, _LATE)
            self._looks_until_next = self._pause

    def share(self) -> Share:
        """One request's share, given back at the end of a `with`."""
        return Share(self)


class Share:
    """What one request holds."""

    def __init__(self, memory: BodyBudget) -> None:
        self._memory = memory
        self._held = 0

    @property
    def capacity(self) -> int:
        """Most bytes that all requests together may hold."""
        return self._memory.capacity

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            Overloaded: all requests together would hold too many.
        """
        if self._memory.held + size > self._memory.capacity:
            raise Overloaded(_RETRY_AFTER_S)
        self._memory.held += size
        self._held += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._memory.held -= self._held
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
