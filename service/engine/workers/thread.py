"""A worker in a thread of this process: nothing has to be packed for it, but if it hangs it cannot be replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

from service.engine.errors import DeviceLost, InferenceFailed
from service.engine.ipc.codec import Check
from service.engine.job import Answered, ImageJob, Outcome
from service.engine.scheduling_policy import set_policy
from service.engine.workers.local import LocalWorker

_log = logging.getLogger(__name__)


class ThreadWorker:
    """See `Worker`.

    Args:
        workers: do the work, by the number of the model; several threads may share them.
    """

    pid: int | None = None
    alive = True

    def __init__(self, workers: Mapping[int, LocalWorker]) -> None:
        self._workers = workers
        self._asked: SimpleQueue[Sequence[ImageJob] | Check | None] = SimpleQueue()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Do nothing: the thread starts when it is connected."""

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:  # noqa: ARG002 (it never is)
        """Begin."""
        loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._run, args=(loop, answered), name="worker", daemon=True)
        self._thread.start()

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        """Give it a batch."""
        self._asked.put(jobs)
        return True

    def check(self, model: int, batch_size: int) -> bool:
        """Have it run a model once."""
        self._asked.put(Check(model, batch_size))
        return True

    def abort(self) -> None:
        """A thread cannot be stopped; it ends with what it runs."""

    def disconnect(self) -> None:
        """Have it end."""
        self._asked.put(None)

    def close(self) -> None:
        """Do nothing: the thread ends when it is disconnected."""

    def _run(self, loop: asyncio.AbstractEventLoop, answered: Answered) -> None:
        set_policy("SCHED_OTHER")  # the loop, which started it, may stand back for it
        while (asked := self._asked.get()) is not None:
            outcomes = self._checked(asked) if isinstance(asked, Check) else self._worked(asked)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(answered, outcomes)

    def _checked(self, check: Check) -> list[Outcome]:
        try:
            self._workers[check.model].check(check.batch_size)
        except Exception as error:
            return [error]
        return []

    def _worked(self, jobs: Sequence[ImageJob]) -> list[Outcome]:
        try:
            return self._workers[jobs[0].model].work(jobs)
        except DeviceLost as lost:
            _log.critical("a device is lost, which only another process can use again: restart the service; %s", lost)
            failure = InferenceFailed()
            failure.__cause__ = lost
            return [failure] * len(jobs)
        except Exception as error:  # this thread must not end by it: nobody else does its work
            return [error] * len(jobs)
