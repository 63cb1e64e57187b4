"""A worker in a process of its own: what crashes or hangs there is noticed, answered for, and replaced."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import orjson
from pydantic import TypeAdapter

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


_OPENED = TypeAdapter(Opened)
_REFUSALS = {kind.__name__: kind for kind in (ArtifactError, RuntimeUnavailable)}


class WorkerProcess:
    """Starts `python -m MODULE` and gives it work over a socket.

    Args:
        module: calls `serve`.
        options: for the module, JSON.
        codec: of the model's outcomes.
        stuck_s: longest time a batch may take, in seconds; a process that needs longer is lost.
    """

    def __init__(self, module: str, options: Mapping[str, object], codec: wire.OutcomeCodec, stuck_s: float) -> None:
        self._module = module
        self._options = options
        self._codec = codec
        self._stuck_s = stuck_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._opened: Opened | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process has opened the model and has not ended."""
        return self._opened is not None and self._process is not None and self._process.poll() is None

    def launch(self, tune: bool = False) -> None:
        """Start the process and do not wait until it has opened the model; `start` does."""
        self.close()
        here, there = socket.socketpair()
        with there:
            command = [sys.executable, "-m", self._module, str(there.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        self._connection = here
        here.settimeout(_LONGEST_START_S)
        wire.send(here, orjson.dumps({**self._options, "tune": tune}))

    def start(self) -> None:
        """Wait until the process has opened the model; launch it first where there is none."""
        if self._process is None or self._process.poll() is not None or self._opened:
            self.launch()
        self.opened()

    def opened(self) -> Opened:
        """What the process says of the model, once it can take work.

        Raises:
            ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: it cannot.
        """
        if self._opened is None:
            reply = orjson.loads(self._exchange())
            if "refusal" in reply:
                self.close()
                kind, message = reply["refusal"]
                raise _REFUSALS[kind](message) if kind in _REFUSALS else InferenceFailed
            self._opened = _OPENED.validate_python(reply)
            assert self._connection is not None
            self._connection.settimeout(self._stuck_s)
        return self._opened

    def work(self, jobs: Sequence[Job[bytes]]) -> list[Outcome]:
        """The outcome of each job."""
        reply = self._exchange(*wire.pack_jobs(jobs))
        try:
            return self._codec.unpack(reply, jobs)
        except Exception as error:  # whatever nonsense came
            raise self._lost("died") from error

    def check(self, batch_size: int) -> None:
        """Run the model once on that many images."""
        if self._exchange(wire.pack_check(batch_size)):
            raise InferenceFailed

    def abort(self) -> None:
        """End the process at once; whoever waits for its answer is told that it was lost."""
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """End the process, by force where it does not end by itself."""
        process, self._process, self._opened = self._process, None, None
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

    def _exchange(self, *parts: bytes) -> bytearray:
        """Send a frame, if any, and wait for the next."""
        connection = self._connection
        if connection is None:
            raise WorkerLost("died")
        try:
            if parts:
                wire.send(connection, *parts)
            return wire.receive(connection)
        except TimeoutError as error:
            raise self._lost("stuck") from error
        except (EOFError, OSError) as error:
            raise self._lost("died") from error

    def _lost(self, reason: str) -> WorkerLost:
        if process := self._process:
            if reason == "stuck":
                process.kill()
            self.close()
            _log.error("worker process %d %s, exit status %s", process.pid, reason, process.returncode)
        return WorkerLost(reason)


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
    try:
        opened, manifest, worker = open_worker(orjson.loads(wire.receive(connection)))
    except (ArtifactError, RuntimeUnavailable, InferenceFailed) as error:
        wire.send(connection, orjson.dumps({"refusal": (type(error).__name__, str(error))}))
        return
    wire.send(connection, orjson.dumps(asdict(opened)))
    codec = wire.OutcomeCodec(manifest, failures)
    while True:
        try:
            asked = wire.unpack_jobs(wire.receive(connection))
        except EOFError:
            return
        if isinstance(asked, int):
            wire.send(connection, _failed_check(worker, asked))
        else:
            wire.send(connection, *codec.pack(worker.work(asked)))


def _failed_check(worker: LocalWorker[bytes], batch_size: int) -> bytes:
    try:
        worker.check(batch_size)
    except InferenceFailed as error:
        _log.error("the model does not run", exc_info=error)
        return b"failed"
    return b""
