"""A worker in a process of its own: what crashes or hangs there is noticed, answered for, and replaced."""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread

import orjson
from pydantic import TypeAdapter, ValidationError

from artifact.manifest import ArtifactError, Manifest
from service.engine import wire
from service.engine.errors import InferenceFailed, RuntimeUnavailable, WorkerLost
from service.engine.runtime import RuntimeDescription
from service.engine.tuning import Tuning
from service.engine.worker import Job, LocalWorker, Outcome

_log = logging.getLogger(__name__)

# To import the libraries, prove the model and, the first time on a machine, try every runtime it could be run with.
_LONGEST_START_S = 120.0
_LONGEST_END_S = 1.0
# Far more than the answers of any batch, in bytes; a process that says it sends more is not itself any more.
_LONGEST_REPLY = 1 << 26


@dataclass(frozen=True)
class Opened:
    """What a worker process says when it can take work.

    Attributes:
        runtime: how it runs the model.
        tuning: how batches should form, where it was asked to measure that.
        first: whether nothing was remembered of this machine: every runtime was tried, and is still in its memory.
    """

    runtime: RuntimeDescription
    tuning: Tuning | None
    first: bool


@dataclass(frozen=True)
class _Refusal:
    """What a worker process says instead when it cannot."""

    kind: str
    message: str


_REPLY: TypeAdapter[Opened | _Refusal] = TypeAdapter(Opened | _Refusal)
_REFUSALS = {kind.__name__: kind for kind in (ArtifactError, RuntimeUnavailable)}


class WorkerProcess:
    """Starts `python -m MODULE` and gives it work over a socket, the next batch while it runs one.

    Args:
        module: calls `serve`.
        options: for the module, JSON.
        codec: of the model's outcomes.
        stuck_s: longest time a batch may take, in seconds; a process that needs longer is lost.
    """

    takes_ahead = True

    def __init__(self, module: str, options: Mapping[str, object], codec: wire.OutcomeCodec, stuck_s: float) -> None:
        self._module = module
        self._options = options
        self._codec = codec
        self._stuck_s = stuck_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._opened: Opened | None = None
        self._aborted = False
        self._ahead: Sequence[Job[bytes]] = ()
        self._lost_pid: int | None = None

    # Threads other than the worker's own read `pid` and `alive` and call `abort`: what they look at may be gone the
    # next moment, so they take hold of it first.

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process else None

    @property
    def alive(self) -> bool:
        """Whether the process has opened the model and has not ended."""
        process = self._process
        return self._opened is not None and process is not None and process.poll() is None

    @property
    def died(self) -> bool:
        """Whether the process has opened the model and has ended by itself since."""
        process = self._process
        return self._opened is not None and process is not None and process.poll() is not None

    @property
    def busy(self) -> bool:
        """Whether the process has been sent a batch that it has not been asked for yet."""
        return bool(self._ahead)

    def launch(self, tune: bool = False) -> None:
        """Start the process and do not wait until it has opened the model; `start` does.

        Raises:
            RuntimeUnavailable: the system does not let it start.
        """
        self.close()
        try:
            self._connection, there = socket.socketpair()
            with there:
                command = [sys.executable, "-m", self._module, str(there.fileno())]
                self._process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
            self._connection.settimeout(_LONGEST_START_S)
            wire.send(self._connection, orjson.dumps({**self._options, "tune": tune}))
        except OSError as error:
            self.close()
            raise RuntimeUnavailable(f"its process cannot be started: {error}") from error
        if self._aborted:
            self._process.kill()

    def start(self) -> None:
        """Wait until the process has opened the model; launch it first where there is none."""
        if self._opened:
            self._end("died")
        if self._process is None or self._process.poll() is not None:
            self.launch()
        self.opened()
        if self._lost_pid is not None:
            _log.warning("worker process %s has taken the place of %d", self.pid, self._lost_pid)
            self._lost_pid = None

    def opened(self) -> Opened:
        """What the process says of the model, once it can take work.

        Raises:
            ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: it cannot.
        """
        if self._opened is None:
            reply = self._receive()
            assert self._connection is not None
            self._connection.settimeout(self._stuck_s)
            try:
                opened = _REPLY.validate_json(reply)
            except ValidationError as error:
                raise self._lost("died") from error
            if isinstance(opened, _Refusal):
                self.close()
                raise _REFUSALS[opened.kind](opened.message) if opened.kind in _REFUSALS else InferenceFailed
            self._opened = opened
        return self._opened

    def work(self, jobs: Sequence[Job[bytes]], following: Sequence[Job[bytes]] = (), /) -> list[Outcome]:
        """The outcome of each job; the process finds what follows in its socket, and does not wait for this one."""
        sent, self._ahead = self._ahead is jobs, ()
        with self._losing() as connection:
            if not sent:
                wire.send(connection, *wire.pack_jobs(jobs))
            if following:
                reply, told = wire.exchange(connection, wire.pack_jobs(following), _LONGEST_REPLY)
            else:
                reply, told = wire.receive(connection, _LONGEST_REPLY), True
        if told:
            self._ahead = following
        elif process := self._process:  # it is dying or hangs: whoever looks next is to see that it has died
            process.kill()
            process.wait()
        try:
            return self._codec.unpack(reply, jobs)
        except Exception as error:  # whatever nonsense came
            raise self._lost("died") from error

    def check(self, batch_size: int) -> None:
        """Run the model once on that many images."""
        self._send(wire.pack_check(batch_size))
        if self._receive():
            raise InferenceFailed

    def abort(self) -> None:
        """End the process at once and for good; whoever waits for its answer is told that it was lost."""
        self._aborted = True  # before the look at the process, of which there may be none yet
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """End the process, by force where it does not end by itself."""
        process, self._process, self._opened = self._process, None, None
        self._ahead = ()
        if self._connection:
            self._connection.close()
            self._connection = None
        if process is None:
            return
        try:
            process.wait(_LONGEST_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _send(self, *parts: bytes) -> None:
        """Send a frame."""
        with self._losing() as connection:
            wire.send(connection, *parts)

    def _receive(self) -> bytearray:
        """Wait for the next frame."""
        with self._losing() as connection:
            return wire.receive(connection, _LONGEST_REPLY)

    @contextmanager
    def _losing(self) -> Iterator[socket.socket]:
        """The connection; what goes wrong with it loses the process."""
        connection = self._connection
        if connection is None:
            raise WorkerLost("died")
        try:
            yield connection
        except TimeoutError as error:
            raise self._lost("stuck") from error
        except Exception as error:  # whatever it was, the next frame might be the answer to this one
            raise self._lost("died") from error

    def _lost(self, reason: str) -> WorkerLost:
        self._end(reason)
        return WorkerLost(reason)

    def _end(self, reason: str) -> None:
        """End what is left of a process that was lost."""
        if process := self._process:
            if reason == "stuck":
                process.kill()
            self.close()
            self._lost_pid = process.pid
            _log.error("worker process %d %s, exit status %s", process.pid, reason, process.returncode)


def serve(
    connection: socket.socket,
    open_worker: Callable[[dict[str, object]], tuple[Opened, Manifest, LocalWorker[bytes]]],
    failures: Sequence[type[Exception]],
) -> None:
    """What a worker process does: open the model, then batch after batch, until the service closes the connection.

    Args:
        connection: to the service.
        open_worker: from the options to the worker; what it raises is told to the service.
        failures: see `wire.OutcomeCodec`.
    """
    Thread(target=_end_without_service, args=(connection,), daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the service is gone
        try:
            opened, manifest, worker = open_worker(orjson.loads(wire.receive(connection)))
        except (ArtifactError, RuntimeUnavailable, InferenceFailed) as error:
            wire.send(connection, orjson.dumps(_Refusal(type(error).__name__, str(error))))
            return
        wire.send(connection, orjson.dumps(opened))
        codec = wire.OutcomeCodec(manifest, failures)
        while True:
            asked = wire.unpack_jobs(wire.receive(connection))
            if isinstance(asked, int):
                wire.send(connection, _failed_check(worker, asked))
            else:
                wire.send(connection, *codec.pack(worker.work(asked)))


def _end_without_service(connection: socket.socket) -> None:
    """End this process when the service has closed the connection or is gone, even in the middle of what it runs."""
    departure = select.poll()
    departure.register(connection, 0)  # hanging up is told without being asked for
    departure.poll()
    os._exit(0)


def _failed_check(worker: LocalWorker[bytes], batch_size: int) -> bytes:
    try:
        worker.check(batch_size)
    except InferenceFailed as error:
        _log.error("the model does not run", exc_info=error)
        return b"failed"
    return b""
