"""The images that the engine has: as many as keep its workers busy, and no more than fit into memory."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from service.engine.engine import Engine
from service.engine.errors import EngineStopped, NoWorker, WorkerLost
from service.engine.job import Answer, Outcome
from service.images.bounded_decoder import ORDINARY_S
from service.images.costs import DecodingCosts, Kind
from service.images.decoding import ImageTooCostly

# The engine as a whole has failed, and not an image.
_ENDS = (EngineStopped, NoWorker)
# To look at a header takes more than it is worth where a file has fewer bytes: few of those are dear.
_SMALL_BYTES = 65_536


class Window:
    """Takes images as long as there is room, and waits while there is none. It lives on the engine's event loop.

    An image that turns out to be dear begins again as such. An image whose worker is lost runs once more, alone, so
    that one that ends its worker takes no others with it.

    Args:
        engine: runs the images; its queue has room for all of them.
        gate_offset: of all images.
        most_images: that the engine has at a time.
        most_bytes: that they have together, unless a single one has more.
        longest_s: that decoding one may take, in seconds.
        on_failure: told why, once, where the engine runs nothing any more.

    Attributes:
        images, image_bytes: that the engine has now.
    """

    def __init__(
        self,
        engine: Engine,
        gate_offset: float,
        most_images: int,
        most_bytes: int,
        longest_s: float,
        on_failure: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._engine, self._gate_offset = engine, gate_offset
        self._on_failure = on_failure
        self._most_images, self._most_bytes = most_images, most_bytes
        self._costs = DecodingCosts(longest_s)
        self._room: asyncio.Future[None] | None = None  # that somebody waits for
        self._there_is_room: Callable[[], bool] = lambda: True
        self._failure: Exception | None = None
        self.images = self.image_bytes = 0

    async def run(self, image: bytes, done: Callable[[Outcome], None]) -> None:
        """Have an image run when there is room for it; what comes of it is told later.

        Raises:
            EngineError: the engine runs nothing any more.
        """
        if self._failure:
            raise self._failure
        size = len(image)
        if self.images >= self._most_images or (self.images and self.image_bytes + size > self._most_bytes):
            # For several at once: to wake up for each takes time from those who run them.
            most = self._most_images - max(1, self._most_images // 4)
            await self._until(lambda: self.images <= most and self.image_bytes + size <= self._most_bytes)
        self.images += 1
        self.image_bytes += size
        _Image(self, image, done).begin()

    async def empty(self) -> None:
        """Return when something has come of every image.

        Raises:
            EngineError: the engine runs nothing any more.
        """
        await self._until(lambda: False)

    async def _until(self, there_is_room: Callable[[], bool]) -> None:
        if self._failure is None and self.images and not there_is_room():
            self._there_is_room = there_is_room
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if self._failure:
            raise self._failure

    def _let_go(self, size: int, failure: Exception | None) -> None:
        """Note that the engine has an image less."""
        self.images -= 1
        self.image_bytes -= size
        if failure and not self._failure:
            self._failure = failure
            self._on_failure(failure)
        if self._room and not self._room.done() and (failure or not self.images or self._there_is_room()):
            self._room.set_result(None)


class _Image:
    """One of them on its way."""

    __slots__ = ("_data", "_dear", "_done", "_kind", "_retried", "_window")

    def __init__(self, window: Window, data: bytes, done: Callable[[Outcome], None]) -> None:
        self._window, self._data, self._done = window, data, done
        self._dear = self._retried = False
        self._kind: Kind | None = None

    def begin(self) -> None:
        costs = self._window._costs
        if len(self._data) >= _SMALL_BYTES:
            self._kind = costs.kind(self._data)
            self._dear = costs.seconds(self._kind) > ORDINARY_S
        self._submit()

    def _submit(self) -> None:
        window = self._window
        try:
            window._engine.submit(
                self._data, math.inf, self._take, follows=True, dear=self._dear, gate_offset=window._gate_offset
            )
        except _ENDS as error:
            self._take(error)

    def _take(self, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            again = not self._retried if isinstance(outcome, WorkerLost) else not self._dear
            if again and isinstance(outcome, WorkerLost | ImageTooCostly):
                self._retried = self._retried or isinstance(outcome, WorkerLost)
                self._dear = True  # which runs alone
                self._submit()
                return
        window = self._window
        if self._kind and isinstance(outcome, Answer):
            window._costs.note(self._kind, outcome.decode_s + outcome.inference_s / outcome.batch_size)
        failure: Exception | None = outcome if isinstance(outcome, _ENDS) else None
        if failure is None:
            try:
                self._done(outcome)
            except Exception as error:  # which the engine would log, and nobody would notice what is missing
                failure = error
        window._let_go(len(self._data), failure)
