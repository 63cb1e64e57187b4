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


class BodyMemory:
    """An account of bytes. Only the event loop's thread uses it.

    Attributes:
        capacity: most bytes held.
        held: bytes held now.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._least_resident = sys.maxsize  # memory of the process since some was given back

    def tidy(self) -> None:
        """Give memory that was needed for a while back to the system; to be called now and then."""
        resident = resident_bytes()
        self._least_resident = min(self._least_resident, resident)
        if resident - self._least_resident > _MUCH_BYTES and self.held < _MUCH_BYTES:
            gc.collect()  # an error may hold on to the frames it came through, and so to what they read
            release_memory()
            self._least_resident = resident_bytes()  # what is left is needed

    def share(self) -> Share:
        """One request's share, given back at the end of a `with`."""
        return Share(self)


class Share:
    """What one request holds."""

    def __init__(self, memory: BodyMemory) -> None:
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
