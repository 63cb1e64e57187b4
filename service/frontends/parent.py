"""The process above the front ends: starts them, replaces those that end, and ends with the last of them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from pydantic_settings import SettingsError

from service.engine.operating_system import bury_orphans
from service.frontends.changes import Changes
from service.frontends.counts import Counts
from service.frontends.division import divided
from service.frontends.front_end import FrontEnd
from service.frontends.talk import NoAnswer
from service.http.listening import claimed, taken_port, url
from service.http.metrics_port import metrics_port
from service.observability.logs import logged
from service.serving import require_free_ports
from service.settings import Settings

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")

# How long to wait before a front end that has ended is started again; it doubles up to the longest, which one that has
# lived for longer need not wait.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0
# Between two questions to a front end how it is, and how long it has to answer.
_ASK_EVERY_S, _ANSWER_S = 0.25, 3.0
# How much of what was counted is lost at most with a front end that is killed.
COUNT_EVERY_S = 2.0
# One that says nothing for so long is ended, as its share of all connections waits for it.
HUNG_S = 30.0
# How long after the time to drain a front end that is told to end may still be there.
_GRACE_S = 10.0


def serve_front_ends(settings: Settings, count: int) -> int:
    """Serve with so many front ends until a signal comes; return the exit status."""
    with logged(settings.log_format, settings.log_level), ExitStack() as open_meanwhile:
        try:
            parts = divided(settings.model_copy(update={"frontends": count}), count)
            # Bound for as long as this runs, and never listened on: so no other program can have it.
            listeners = open_meanwhile.enter_context(taken_port(settings.host, settings.port))
            # The system would let other front ends listen for gRPC beside these.
            grpc_port = settings.grpc_port
            grpc = open_meanwhile.enter_context(taken_port(settings.host, grpc_port)) if grpc_port else []
            open_meanwhile.enter_context(claimed([*listeners, *grpc]))
            require_free_ports(settings)
        except SettingsError as error:
            _log.error("%s", error)
            return 1
        port = listeners[0].getsockname()[1]
        parts = [part.model_copy(update={"port": port}) for part in parts]
        return asyncio.run(Parent(settings, parts, [url(each) for each in listeners]).run())


class Parent:
    """Keeps as many front ends as there are settings for.

    The service is ready once all have been, and while every one that takes connections is: a client cannot choose
    which one answers, and one that is starting takes none.

    Args:
        settings: of the service.
        parts: settings of each front end.
        urls: where they are.
    """

    def __init__(self, settings: Settings, parts: Sequence[Settings], urls: Sequence[str]) -> None:
        self._settings = settings
        self._parts = parts
        self._urls = urls
        self._front_ends: dict[int, FrontEnd] = {}
        self._all_have_served = asyncio.Event()
        self._leaving = asyncio.Event()
        self._failed = False
        self._keeping: list[asyncio.Task[None]] = []
        self._counts = Counts(lambda: self.serving)
        self._changes = Changes(lambda: self._front_ends, len(parts))

    @property
    def serving(self) -> list[FrontEnd]:
        """Those that take connections."""
        return [each for each in self._front_ends.values() if each.serving]

    @property
    def problem(self) -> str | None:
        """Why the service is not ready; None where it is."""
        if self._leaving.is_set():
            return "stopping"
        if not self._all_have_served.is_set():
            return "front ends are starting"
        if not self.serving:
            return "no front end takes connections"
        return next((f"front end {each.number}: {each.problem}" for each in self.serving if each.problem), None)

    async def run(self) -> int:
        """Serve until a signal comes, or until a front end cannot be started at first; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._take_signal, number)
        settings = self._settings
        with ExitStack() as open_meanwhile:
            if settings.metrics_port:
                registry = self._counts.registry_for_threads(loop)
                open_meanwhile.enter_context(metrics_port(registry, settings.metrics_host, settings.metrics_port))
            self._begin(0)  # what it finds out about this machine it keeps, so that the others need not
            while ongoing := [each for each in self._keeping if not each.done()]:
                await asyncio.wait(ongoing)
        for each in self._keeping:
            each.result()
        return int(self._failed)

    def _begin(self, *numbers: int) -> None:
        self._keeping += [asyncio.get_running_loop().create_task(self._keep(number)) for number in numbers]

    def _note_listening(self, front_end: FrontEnd) -> None:
        front_end.serving = True
        front_end.served_at = time.monotonic()
        if self._all_have_served.is_set():
            _log.info("front end %d, process %s, takes connections", front_end.number, front_end.pid)
            return
        if front_end.number == 0:
            self._begin(*range(1, len(self._parts)))
        if len(self.serving) == len(self._parts):
            self._all_have_served.set()
            _log.info("%d front ends running on %s (Press CTRL+C to quit)", len(self._parts), ", ".join(self._urls))

    async def _keep(self, number: int) -> None:
        """Have a front end with this number until the service ends."""
        retry_s = 0.0
        while not self._leaving.is_set():
            front_end = FrontEnd(number, self._answered)
            status = await self._lived(front_end)
            if self._leaving.is_set():
                self._failed |= bool(status) and front_end.served_at is not None
            elif not self._all_have_served.is_set():
                self._failed = True
                self._leave(signal.SIGTERM)
            else:
                _log.error("front end %d, process %s, has ended, exit status %d", number, front_end.pid, status)
                lived_s = time.monotonic() - front_end.served_at if front_end.served_at is not None else 0.0
                retry_s = 0.0 if lived_s > _LONGEST_RETRY_S else min(max(2 * retry_s, _FIRST_RETRY_S), _LONGEST_RETRY_S)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), retry_s)

    async def _lived(self, front_end: FrontEnd) -> int:
        """Start a front end, have it serve, and return its exit status in the end."""
        number = front_end.number
        try:
            async with self._changes.lock:  # what it is to serve must not change before it is known to be there
                bury_orphans([each.pid for each in self._front_ends.values()])
                self._front_ends[number] = front_end
                await front_end.start(self._parts[number], len(self._parts), self._models_of_others(number))
        except OSError as error:
            _log.error("front end %d cannot be started: %s", number, error)
            return 1
        if self._leaving.is_set():
            front_end.signal(signal.SIGTERM)
        attending = asyncio.get_running_loop().create_task(self._attend(front_end))
        status = await front_end.ended()
        attending.cancel()
        self._counts.retire(front_end)
        return status

    def _models_of_others(self, number: int) -> Sequence[tuple[str, str]] | None:
        """What one that is started serves: what the others do, and at first what is there."""
        if not self._all_have_served.is_set():
            return None
        return next((each.models for each in self.serving if each.number != number), None)

    async def _attend(self, front_end: FrontEnd) -> None:
        """Ask a front end that serves how it is, tell it how the others are, and end it where it hangs."""
        silent_s = counted_at = 0.0
        while True:
            begun_at = time.monotonic()
            await asyncio.sleep(_ASK_EVERY_S)
            if front_end.served_at is None:
                continue
            try:
                told = await front_end.talk.ask("state", self.problem, _ANSWER_S)
            except NoAnswer as error:
                front_end.problem = str(error)
                # Not all the time that has passed, in which this process may have been suspended itself.
                silent_s += min(time.monotonic() - begun_at, _ASK_EVERY_S + _ANSWER_S)
                if silent_s > HUNG_S:
                    _log.error("front end %d says nothing for %g s, and is ended", front_end.number, HUNG_S)
                    front_end.signal(signal.SIGKILL)
                    return
                continue
            silent_s = 0.0
            front_end.problem, front_end.models = told["problem"], told["models"]
            front_end.serving = not told["leaving"]
            if begun_at - counted_at > COUNT_EVERY_S:
                counted_at = begun_at
                await self._counts.ask(front_end)

    async def _answered(self, front_end: FrontEnd, what: str, about: Any) -> Any:
        match what:
            case "listening":
                self._note_listening(front_end)
            case "ending":
                self._counts.take(front_end, about)
            case "metrics":
                return await self._counts.text()
            case "change":
                return await self._changes.make(*about)
        return None

    def _take_signal(self, number: signal.Signals) -> None:
        if all(each.served_at is None for each in self._front_ends.values()):
            os._exit(128 + number)  # nothing was accepted; what was started ends with this process
        self._leave(number)

    def _leave(self, number: signal.Signals) -> None:
        if not self._leaving.is_set():
            self._leaving.set()
            kinds = 2 if self._settings.grpc_port else 1  # of requests, which a front end drains one after the other
            longest_s = kinds * self._settings.drain_seconds + _GRACE_S
            asyncio.get_running_loop().call_later(longest_s, self._end_the_rest)
        for each in self._front_ends.values():
            each.signal(number)

    def _end_the_rest(self) -> None:
        for each in self._front_ends.values():
            each.signal(signal.SIGKILL)
