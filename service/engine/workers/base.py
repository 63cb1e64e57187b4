"""What a worker is to the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from service.engine.job import Answered, ImageJob


class Worker(Protocol):
    """Runs batches, in the order in which it is given them, and begins with the next as soon as it is done with one.

    `start` and `close` take their time and are called by any thread, one at a time; all may look at `pid` and `alive`;
    the rest belongs to the event loop.
    """

    @property
    def pid(self) -> int | None:
        """Of its process, where it has one of its own."""

    @property
    def alive(self) -> bool:
        """Whether it can be given work, as far as anybody can tell."""

    def start(self) -> None:
        """Make it able to take work, again where it has been lost.

        Raises:
            ArtifactError, EngineError: it cannot be.
        """

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:
        """Take what comes from it, after it was started.

        Args:
            answered: called on the loop with the outcome of each job of a batch, in order; after a check with nothing,
                or with what was wrong.
            lost: called on the loop, once and with the reason, when it is lost with all that it was given: "died", or
                "stuck". It must be started again.
        """

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        """Give it a batch of one model, and say whether it is still there; else it has not begun with that."""

    def check(self, model: int, batch_size: int) -> bool:
        """Have it run a model once on that many images; else as for `give`."""

    def abort(self) -> None:
        """Have it lost at once and for good, where that can be done."""

    def disconnect(self) -> None:
        """Hear nothing more of it."""

    def close(self) -> None:
        """End it, after it was disconnected."""
