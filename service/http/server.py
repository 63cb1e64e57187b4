"""The application on uvicorn: how that is set up, and how it comes to its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import resource
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import uvicorn
from h11 import LocalProtocolError
from starlette.types import ASGIApp

from service.classify.context import Context
from service.http.front_door import REFUSAL, FrontDoor
from service.http.listening import is_listening, let_nobody_in, url
from service.http.turns import RequestTurns
from service.settings import MOST_GRPC_CONNECTIONS

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")

# With uvicorn's own limit between two requests (5 s), nothing that does nothing stays open for 15 s.
_IDLE_S, _SWEEP_S = 9.0, 1.0
# A head that has not come to its end in so many bytes is refused; h11's own default.
_MOST_HEAD_BYTES = 16_384
# How long those who are connected when the server is told to stop may still bring a request. Answers tell them that
# their connection ends.
_LEAVE_S = 1.0
_ACCEPT_S = 0.02
# uvloop accepts one connection of each socket it listens on in a turn. So it gets every socket so many times.
_ACCEPTS = 32
# Files that are open beside connections: workers, libraries, logs.
_OTHER_FILES = 256


class HttpServer:
    """Runs the application until a signal ends it.

    Args:
        app: the application.
        context: what it serves from.
        turns: in which its requests are begun with.
        on_listening: called when it listens; by default it is logged where.

    Attributes:
        door: by which connections come.
    """

    def __init__(
        self, app: ASGIApp, context: Context, turns: RequestTurns, on_listening: Callable[[], None] | None = None
    ) -> None:
        settings = context.settings
        self._context = context
        self._on_listening = on_listening or self._log_urls
        others = _OTHER_FILES + (MOST_GRPC_CONNECTIONS if settings.grpc_port else 0)
        files = _files_allowed(settings.max_connections + others)
        most = max(1, min(settings.max_connections, files - others))
        per_address = settings.max_connections_per_address or math.ceil(most / 2)
        self.door = FrontDoor(most, per_address, _IDLE_S, self._count_refusal, turns.leave)
        http: Any = self.door.protocol  # as good as a class
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=http,
                ws="none",
                h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
                root_path=settings.root_path,
                log_config=None,
                access_log=False,  # it would write query strings down
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
                callback_notify=self._tick,
                timeout_notify=0,  # which is about once a second
                server_header=False,
                proxy_headers=False,
            )
        )
        self._listeners: Sequence[socket.socket] = ()
        self._listens = self._failed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def uvicorn(self) -> uvicorn.Server:
        """What serves."""
        return self._server

    def run(self, listeners: list[socket.socket]) -> bool:
        """Serve on these sockets until a signal comes, and say whether that was possible."""
        self._listeners = listeners
        # uvicorn heeds signals only once the event loop runs. A handler that raises while the loop is set up breaks it.
        before = self._heed_signals()
        filtered = logging.getLogger("uvicorn.error")
        filtered.addFilter(_is_no_clients_doing)
        copies = [listener.dup() for listener in listeners for _ in range(_ACCEPTS - 1)]
        try:
            self._server.run([*listeners, *copies])
        finally:
            filtered.removeFilter(_is_no_clients_doing)
            for copy in copies:  # where it did not come to serving
                copy.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return not self._failed

    def stop(self) -> None:
        """Begin to stop, from any thread."""
        if self._loop is None:
            self._server.should_exit = True
        else:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._leave_once)

    async def _tick(self) -> None:
        """What uvicorn calls when it has started, and then about once a second."""
        if not self._listens and self._begin():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        """Look after connections and memory to the end, when uvicorn calls nobody any more."""
        while True:
            try:
                self.door.sweep()
                self._context.memory.tidy()
            except Exception:  # lest it be the last time
                _log.exception("connections could not be looked after")
            await asyncio.sleep(_SWEEP_S)

    def _begin(self) -> bool:
        if not all(map(is_listening, self._listeners)):  # which uvloop does not tell
            _log.error("cannot listen: another program has begun to listen on the port meanwhile")
            self._server.should_exit = self._failed = True
            return False
        self._listens = True
        gc.collect()
        gc.freeze()  # what there is now stays, and need not be looked through again whenever garbage is collected
        self._loop = asyncio.get_running_loop()
        self._heed_signals()  # instead of uvicorn
        self._on_listening()
        return True

    def _log_urls(self) -> None:
        _log.info("Uvicorn running on %s (Press CTRL+C to quit)", ", ".join(map(url, self._listeners)))

    def _heed_signals(self) -> dict[signal.Signals, Any]:
        """Have signals stop the server; return the handlers they had."""
        if threading.current_thread() is not threading.main_thread():  # no other can be signalled
            return {}
        return {number: signal.signal(number, self._take_signal) for number in (signal.SIGTERM, signal.SIGINT)}

    def _take_signal(self, number: int, _: object) -> None:
        if self._leaving and number == signal.SIGINT:
            self._server.force_exit = True  # as uvicorn has it for a second Ctrl-C
        self.stop()

    def _leave_once(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())

    async def _leave(self) -> None:
        """Take no connections any more, let those that there are bring what is on its way, then have uvicorn stop."""
        self._context.engine.crew.leave()
        try:
            # A connection that waits to be accepted when its listener is closed is reset.
            for listener in self._listeners:
                let_nobody_in(listener)
            await asyncio.sleep(_ACCEPT_S)
            for server in self._server.servers:
                server.close()
            for _ in range(round(_LEAVE_S / 0.05)):
                if not self.door.is_open_to_anybody:
                    break
                await asyncio.sleep(0.05)
        finally:
            self._server.should_exit = True

    def _count_refusal(self) -> None:
        self._context.metrics.count_request("unmatched", REFUSAL, 0.0)


def _files_allowed(wanted: int) -> int:
    """Have the system let this process open so many files, or as many as it may."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    if allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return max(allowed, wanted)


def _is_no_clients_doing(record: logging.LogRecord) -> bool:
    """False for what a client brings uvicorn to log: it could fill the log with that."""
    if record.module != "h11_impl":
        return True
    error = record.exc_info[1] if record.exc_info else None
    # The second is raised in an answer on a connection that uvicorn has ended, because what came was no HTTP.
    # The third ends what is in progress when the server waits no longer, which it says once itself.
    return record.levelno != logging.WARNING and not isinstance(error, LocalProtocolError | asyncio.CancelledError)
