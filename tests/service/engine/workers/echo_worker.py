"""A worker process without a model: it echoes numbers, and dies, hangs or talks nonsense when a payload tells it to.

python -m tests.service.engine.workers.echo_worker FD
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import numpy as np

from artifact.manifest import ArtifactError
from artifact.preprocessing import Float32Array
from service.engine.errors import InferenceFailed, RuntimeUnavailable
from service.engine.ipc.handshake import Opened
from service.engine.runtimes.base import description
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers.child import OpenModel, serve
from service.engine.workers.local import LocalWorker
from tests.runtimes import EchoRuntime, echo_input

POISON = 666.0
WORKERS = 3  # what it finds best when it is asked to tune
_LENGTH = struct.Struct("!Q")
_REFUSALS = {kind.__name__: kind for kind in (ArtifactError, RuntimeUnavailable, InferenceFailed, LookupError)}


class BadNumber(ValueError):  # noqa: N818 (named like the service's own)
    """The payload is no number."""


def main() -> None:
    """Serve the socket whose file descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection, lambda options: _open(connection, options), [BadNumber])


def _open(connection: socket.socket, options: dict[str, Any]) -> list[OpenModel]:
    orders = Orders(connection)
    if "before" in options:
        orders.follow(options["before"])
    if "dies_once" in options and (mark := Path(options["dies_once"])).exists():
        mark.unlink()
        orders.follow("die")
    if "refuse" in options:
        kind, message = options["refuse"]
        raise InferenceFailed if kind == "InferenceFailed" else _REFUSALS[kind](message)
    runtime = EchoRuntime([POISON, *options.get("poison", [])])
    tuning = Tuning(BatchPolicy(WORKERS, max_batch=4, max_wait_ms=0)) if options["tune"] else None
    opened = Opened(description(runtime), tuning, options.get("first", False))
    return [OpenModel(0, opened, LocalWorker(runtime, orders.prepare))]


class Orders:
    """What a payload can make the process do: a number is echoed, and every method but `prepare` is an order.

    Args:
        connection: to the service, on which some orders talk out of turn.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def prepare(self, payload: bytes) -> Float32Array:
        """The network's input of a payload."""
        text = payload.decode()
        if hasattr(self, text):
            self.follow(text)
        try:
            return echo_input(np.float32(text))
        except ValueError as error:
            raise BadNumber(f"{text} is no number") from error

    def follow(self, order: str) -> None:
        """Do what a word says."""
        todo: Callable[[], None] = getattr(self, order)
        todo()

    def nap(self) -> None:
        """Take a while."""
        time.sleep(1.2)

    def die(self) -> NoReturn:
        """End without a word."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def hang(self) -> NoReturn:
        """Never come back."""
        Event().wait()
        raise AssertionError

    def surprise(self) -> NoReturn:
        """Fail as nobody expects."""
        raise LookupError("what a surprise")

    def nonsense(self) -> NoReturn:
        """Send a frame that means nothing."""
        self._connection.sendall(_LENGTH.pack(3) + b"???")
        self.hang()

    def absurdity(self) -> NoReturn:
        """Say that a frame follows for which nobody should make room, though many a system would."""
        self._connection.sendall(_LENGTH.pack(1 << 34))
        self.hang()

    def half(self) -> NoReturn:
        """Send half a frame and die."""
        self._connection.sendall(_LENGTH.pack(100) + bytes(50))
        self.die()

    def stutter(self) -> NoReturn:
        """Send half a frame and hang."""
        self._connection.sendall(_LENGTH.pack(100) + bytes(50))
        self.hang()


if __name__ == "__main__":
    main()
