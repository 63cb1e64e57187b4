"""What is said to a worker process that takes work, and what it answers; until it is lost."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from service.engine.ipc import codec as wire
from service.engine.ipc.channel import Channel
from service.engine.ipc.frames import Frames
from service.engine.ipc.watchdog import Watchdog
from service.engine.job import Answered, ImageJob


class Dialogue:
    """Goes on on the event loop.

    Args:
        here: this side of the socket; it is closed with this.
        frames: that came from the process.
        codecs: of the outcomes of every model, by its number.
        stuck_s: longest time a batch may take, in seconds.
        answered: called with the outcomes of every batch.
        lost: called with the reason, once, after which nothing more is heard: "died" or "stuck".
    """

    def __init__(
        self,
        here: socket.socket,
        frames: Frames,
        codecs: Mapping[int, wire.OutcomeCodec],
        stuck_s: float,
        answered: Answered,
        lost: Callable[[str], None],
    ) -> None:
        self._connection = Channel(here, frames, self._hear, lambda: self._lose("died"))
        self._watchdog = Watchdog(stuck_s, lambda: self._lose("stuck"))
        self._codecs = codecs
        self._answered = answered
        self._lost = lost
        self._asked: deque[tuple[int, int]] = deque()  # model and size of the batches it has; the size of a check is 0

    async def open(self) -> None:
        """Begin to listen."""
        await self._connection.open()

    def give(self, jobs: Sequence[ImageJob]) -> bool:
        """Ask for a batch, and say whether the process is still there."""
        return self._ask(jobs[0].model, len(jobs), wire.pack_jobs(jobs))

    def check(self, model: int, batch_size: int) -> bool:
        """Ask for a check; else as for `give`."""
        return self._ask(model, 0, wire.pack_check(wire.Check(model, batch_size)))

    def close(self) -> None:
        """Hang up."""
        self._watchdog.end()
        self._connection.close()

    def _ask(self, model: int, size: int, frame: bytes) -> bool:
        if not self._connection.send(frame):
            return False
        if not self._asked:
            self._watchdog.watch()
        self._asked.append((model, size))
        return True

    def _hear(self, frame: bytes) -> None:
        try:
            model, size = self._asked.popleft()
            outcomes = self._codecs[model].unpack(frame, size)
        except Exception:  # whatever nonsense came, the next frame might be the answer to this one
            self._lose("died")
            return
        if self._asked:
            self._watchdog.watch()
        else:
            self._watchdog.rest()
        self._answered(outcomes)

    def _lose(self, reason: str) -> None:
        self.close()
        self._lost(reason)
