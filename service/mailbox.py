"""What other threads have finished, brought to the event loop: all that is there costs it one call."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Calls on the loop what was posted by any thread, in that order."""

    def __init__(self) -> None:
        self._letters: deque[Callable[[], None]] = deque()
        self._loop_comes = False

    def post(self, letter: Callable[[], None], loop: AbstractEventLoop) -> None:
        """Have `letter` called on the loop, which is always the same one."""
        self._letters.append(letter)
        # Either the loop has not looked yet, and will find it, or it is called: two threads may both do so, which is
        # a call too many and not one too few.
        if not self._loop_comes:
            self._loop_comes = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._loop_comes = False
        # What is posted meanwhile calls the loop again: others have their turn in between.
        for left in reversed(range(len(self._letters))):
            try:
                self._letters.popleft()()
            except BaseException:
                if left:
                    asyncio.get_running_loop().call_soon(self._deliver)
                raise
