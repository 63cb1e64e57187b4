"""What a worker process does: it opens the model, then runs batch after batch."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

import orjson

from artifact.manifest import ArtifactError, Manifest
from service.engine.errors import InferenceFailed, RuntimeUnavailable
from service.engine.ipc import codec as wire
from service.engine.ipc.frames import Frames, framed, receive
from service.engine.ipc.handshake import Opened, Refusal
from service.engine.job import Outcome
from service.engine.operating_system import end_with_parent, forbid_new_privileges, release_memory
from service.engine.scheduling_policy import set_policy
from service.engine.workers.local import LocalWorker

_log = logging.getLogger(__name__)

# In bytes: a large photograph, whose decoding takes far longer.
_LARGE_FRAME = 1_048_576


def serve(
    connection: socket.socket,
    open_worker: Callable[[dict[str, object]], tuple[Opened, Manifest, LocalWorker]],
    failures: Sequence[type[Exception]],
) -> None:
    """What a worker process does: open the model, then batch after batch, until the service closes the connection.

    Args:
        connection: to the service.
        open_worker: from the options to the worker; what it raises is told to the service.
        failures: see `wire.OutcomeCodec`.
    """
    end_with_parent()
    forbid_new_privileges()
    Thread(target=_end_without_service, args=(connection,), daemon=True).start()
    set_policy("SCHED_OTHER")  # the service's loop, from which it may come, may stand back for it
    frames = Frames()
    with suppress(EOFError, ConnectionError):  # the service is gone
        try:
            opened, manifest, worker = open_worker(orjson.loads(receive(connection, frames)))
        except (ArtifactError, RuntimeUnavailable, InferenceFailed) as error:
            connection.sendall(framed(orjson.dumps(Refusal(type(error).__name__, str(error)))))
            return
        connection.sendall(framed(orjson.dumps(opened)))
        codec = wire.OutcomeCodec(manifest, failures)
        while True:
            frame = receive(connection, frames)
            asked = wire.unpack_jobs(frame)
            told = _checked(worker, asked) if isinstance(asked, int) else worker.work(asked)
            connection.sendall(codec.pack(told))
            if len(frame) > _LARGE_FRAME:
                del frame, asked
                release_memory()


def _end_without_service(connection: socket.socket) -> None:
    """End this process when the service has closed the connection or is gone, even in the middle of what it runs."""
    departure = select.poll()
    departure.register(connection, 0)  # hanging up is told without being asked for
    departure.poll()
    os._exit(0)


def _checked(worker: LocalWorker, batch_size: int) -> list[Outcome]:
    """Run the check; return its error, or nothing."""
    try:
        worker.check(batch_size)
    except InferenceFailed as error:
        _log.error("the model does not run", exc_info=error)
        return [error]
    return []
