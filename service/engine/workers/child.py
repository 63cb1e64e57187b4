"""What a worker process does: it opens its models, then runs batch after batch."""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import NamedTuple

import orjson

from artifact.manifest import ArtifactError
from service.engine.errors import DeviceLost, InferenceFailed, RuntimeUnavailable
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


class OpenModel(NamedTuple):
    """A model that can be run.

    Attributes:
        number: that jobs name it by.
        opened: what is said of it.
        worker: runs it.
    """

    number: int
    opened: Opened
    worker: LocalWorker


def serve(
    connection: socket.socket,
    open_models: Callable[[dict[str, object]], Sequence[OpenModel]],
    failures: Sequence[type[Exception]],
) -> None:
    """What a worker process does: open the models, then batch after batch, until the service closes the connection.

    Args:
        connection: to the service.
        open_models: from the options to the models; what it raises is told to the service.
        failures: see `wire.OutcomeCodec`.
    """
    end_with_parent()
    forbid_new_privileges()
    Thread(target=_end_without_service, args=(connection,), daemon=True).start()
    set_policy("SCHED_OTHER")  # the service's loop, from which it may come, may stand back for it
    try:
        _serve(connection, open_models, failures)
    except DeviceLost as error:  # whoever is started in this one's place has it again
        _log.error("this process ends, since its device is lost: %s", error)
        sys.exit(1)


def _serve(
    connection: socket.socket,
    open_models: Callable[[dict[str, object]], Sequence[OpenModel]],
    failures: Sequence[type[Exception]],
) -> None:
    frames = Frames()
    with suppress(EOFError, ConnectionError):  # the service is gone
        try:
            models = open_models(orjson.loads(receive(connection, frames)))
        except (ArtifactError, RuntimeUnavailable, InferenceFailed) as error:
            connection.sendall(framed(orjson.dumps(Refusal(type(error).__name__, str(error)))))
            return
        connection.sendall(framed(orjson.dumps([model.opened for model in models])))
        by_number = {
            model.number: (model.worker, wire.OutcomeCodec(model.worker.manifest, failures)) for model in models
        }
        while True:
            frame = receive(connection, frames)
            asked = wire.unpack_jobs(frame)
            if isinstance(asked, wire.Check):
                worker, codec = by_number[asked.model]
                told = _checked(worker, asked.batch_size)
            else:
                worker, codec = by_number[asked[0].model]
                told = worker.work(asked)
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
