"""A worker in a process of its own: what crashes or hangs there is noticed, answered for, and replaced."""

from __future__ import annotations

import logging
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import orjson

from service.engine.child_process import start_module
from service.engine.devices.process import DeviceProcess
from service.engine.errors import RuntimeUnavailable, WorkerLost
from service.engine.ipc import codec as wire
from service.engine.ipc.dialogue import Dialogue
from service.engine.ipc.frames import Frames, framed, receive
from service.engine.ipc.handshake import REPLY, Opened, Refusal
from service.engine.job import Answered, ImageJob
from service.engine.operating_system import is_suspended

_log = logging.getLogger(__name__)

# To import the libraries, prove the model and, the first time on a machine, try every runtime it could be run with.
_LONGEST_START_S = 120.0
_LONGEST_END_S = 1.0
# Far more than the answers of any batch, in bytes; a process that says it sends more is not itself any more.
_LONGEST_REPLY = 1 << 26


class WorkerProcess:
    """Starts `python -m MODULE` and gives it work over a socket.

    Args:
        module: calls `process_side.serve`; its arguments are the descriptors of the socket and of the log.
        options: for the module, JSON.
        codecs: of the outcomes of every model, by its number.
        stuck_s: longest time a batch may take, in seconds; a process that needs longer is lost.
        device: that runs its models; it is given the descriptor of a connection to that, after the socket's.
    """

    def __init__(
        self,
        module: str,
        options: Mapping[str, object],
        codecs: Mapping[int, wire.OutcomeCodec],
        stuck_s: float,
        device: DeviceProcess | None = None,
    ) -> None:
        self._module = module
        self._options = options
        self._codecs = codecs
        self._stuck_s = stuck_s
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._frames = Frames()
        self._opened: list[Opened] | None = None
        self._aborted = False
        self._loss: str | None = None  # why the process was lost, until it is ended
        self._lost_pid: int | None = None  # of one that has not been replaced
        self._dialogue: Dialogue | None = None

    # Others than those who start it and give it work read `pid` and `alive` and call `abort`: what they look at may be
    # gone the next moment, so they take hold of it first.

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process else None

    @property
    def alive(self) -> bool:
        """Whether the process has opened its models, has not ended, and is not suspended by a signal."""
        process = self._process
        return self._running and process is not None and not is_suspended(process.pid)

    @property
    def _running(self) -> bool:
        process = self._process
        return self._opened is not None and self._loss is None and process is not None and process.poll() is None

    def launch(self, tune: bool = False) -> None:
        """Start the process and do not wait until it has opened its models; `start` does.

        Raises:
            RuntimeUnavailable: the system does not let it start.
        """
        self.close()
        try:
            self._socket, there = socket.socketpair()
            with ExitStack() as passed:
                connections = [there, *([self._device.connect()] if self._device else [])]
                for connection in connections:
                    passed.enter_context(connection)
                descriptors = [connection.fileno() for connection in connections]
                self._process = start_module(self._module, descriptors, "worker process")
            self._frames = Frames(_LONGEST_REPLY)
            self._socket.settimeout(_LONGEST_START_S)
            self._socket.sendall(framed(orjson.dumps({**self._options, "tune": tune})))
        except OSError as error:
            self.close()
            raise RuntimeUnavailable(f"its process cannot be started: {error}") from error
        if self._aborted:
            self._process.kill()

    def start(self) -> None:
        """Wait until the process has opened its models; launch it first where there is none that lives."""
        if self._opened and not self._running:
            self._loss = self._loss or "died"
        if self._loss or self._process is None or self._process.poll() is not None:
            self.launch()
        self.opened()
        if self._lost_pid is not None:
            _log.warning("worker process %s has taken the place of %d", self.pid, self._lost_pid)
            self._lost_pid = None

    def opened(self) -> list[Opened]:
        """What the process says of its models, once it can take work.

        Raises:
            ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: it cannot.
        """
        if self._opened is None:
            if self._socket is None:
                raise WorkerLost("died")
            try:
                said = REPLY.validate_json(receive(self._socket, self._frames))
            except (EOFError, OSError, ValueError) as error:  # of the last kind is all that makes no sense
                self._loss = "stuck" if isinstance(error, TimeoutError) else "died"
                loss = WorkerLost(self._loss)
                self.close()
                raise loss from error
            if isinstance(said, Refusal):
                self.close()
                raise said.error
            self._opened = said
        return self._opened

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:
        """Have the process take work.

        Raises:
            WorkerLost: it is gone already.
        """
        here, self._socket = self._socket, None
        if here is None:
            raise WorkerLost("died")

        listening = False

        def lose(reason: str) -> None:
            self._loss = reason
            if listening:
                lost(reason)

        self._dialogue = Dialogue(here, self._frames, self._codecs, self._stuck_s, answered, lose)
        await self._dialogue.open()
        if self._loss:
            raise WorkerLost(self._loss)
        listening = True

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        """Give it a batch."""
        return self._dialogue is not None and self._dialogue.give(jobs)

    def check(self, model: int, batch_size: int) -> bool:
        """Have it run a model once."""
        return self._dialogue is not None and self._dialogue.check(model, batch_size)

    def abort(self) -> None:
        """End the process at once and for good; whoever waits for its answer is told that it was lost."""
        self._aborted = True  # before the look at the process, of which there may be none yet
        if process := self._process:
            process.kill()

    def disconnect(self) -> None:
        """Hang up: it ends when it is done with what it runs."""
        if self._dialogue:
            self._dialogue.close()
            self._dialogue = None

    def close(self) -> None:
        """End the process, by force where it does not end by itself."""
        process, self._process, self._opened = self._process, None, None
        loss, self._loss = self._loss, None
        if self._socket:
            self._socket.close()
            self._socket = None
        if process is None:
            return
        if loss == "stuck":
            process.kill()
        try:
            process.wait(_LONGEST_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if loss:
            self._lost_pid = process.pid
            _log.error("worker process %d %s, exit status %s", process.pid, loss, process.returncode)
