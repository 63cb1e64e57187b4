"""What the service and its worker processes say to each other: frames over a socket, with nothing in them but numbers
and text.

A frame is its length and that many bytes. Nothing is pickled: a worker decodes what strangers sent, and whatever gets
hold of it must not get hold of the service as well.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import orjson

from artifact.manifest import Manifest
from service.engine.errors import DeadlineExceeded, InferenceFailed
from service.engine.worker import Answer, Job, Outcome

_LENGTH = struct.Struct("!Q")
_JOB = struct.Struct("!dQ")  # when the answer is worthless, on the clock of all processes; bytes of the payload

# Before the jobs. Where there are none, how many images of its own a worker is to run as a check; else 0.
_CHECK = struct.Struct("!I")


class UnexpectedError(RuntimeError):
    """An exception that nobody expected, in a worker process; the message names it."""


def send(connection: socket.socket, *parts: bytes) -> None:
    """Send one frame.

    Raises:
        OSError: the other side is gone.
    """
    connection.sendall(_frame(parts))


def exchange(connection: socket.socket, parts: Sequence[bytes], most_bytes: int) -> tuple[bytearray, bool]:
    """Receive one frame, and meanwhile send another to whoever reads it only after having sent theirs.

    Where both frames are larger than what a socket holds, each side would else wait for the other to make room.

    Returns:
        The frame that came, and whether the other could be sent.

    Raises:
        EOFError, TimeoutError, OSError, ValueError: as for `receive`.
    """
    unsent = memoryview(_frame(parts))
    timeout_s = connection.gettimeout()
    ready = select.poll()
    ready.register(connection, select.POLLIN | select.POLLOUT)
    try:
        while unsent:
            events = ready.poll(None if timeout_s is None else 1000 * timeout_s)
            if not events:
                raise TimeoutError
            if not events[0][1] & select.POLLOUT:
                break
            unsent = unsent[connection.send(unsent) :]
    except ConnectionError:  # it is gone, but may have sent its frame before
        return receive(connection, most_bytes), False
    received = receive(connection, most_bytes)
    try:
        if unsent:
            connection.sendall(unsent)
    except OSError:
        return received, False
    return received, True


def receive(connection: socket.socket, most_bytes: int | None = None) -> bytearray:
    """Receive one frame.

    Args:
        connection: to the other side.
        most_bytes: longest frame to make room for, where the other side is not to be trusted.

    Raises:
        EOFError: the other side has closed the connection.
        TimeoutError: nothing came within the socket's timeout.
        OSError: the connection is broken.
        ValueError: the frame is longer than `most_bytes`.
    """
    (length,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    if most_bytes is not None and length > most_bytes:
        raise ValueError(f"a frame of {length} bytes")
    return _receive_exactly(connection, length)


def _frame(parts: Sequence[bytes]) -> bytes:
    body = b"".join(parts)
    return _LENGTH.pack(len(body)) + body


def _receive_exactly(connection: socket.socket, length: int) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    return buffer


def pack_jobs(jobs: Sequence[Job[bytes]], clock: Callable[[], float] = time.monotonic) -> list[bytes]:
    """The parts of a frame that asks for a batch. The time until it is unpacked counts, by a clock both sides have."""
    now = clock()
    return [_CHECK.pack(0)] + [
        part for job in jobs for part in (_JOB.pack(now + job.remaining_s, len(job.payload)), job.payload)
    ]


def pack_check(batch_size: int) -> bytes:
    """A frame that asks for a check."""
    return _CHECK.pack(batch_size)


def unpack_jobs(frame: bytearray, clock: Callable[[], float] = time.monotonic) -> list[Job[bytes]] | int:
    """The batch a frame asks for, or the size of the batch for a check."""
    (check,) = _CHECK.unpack_from(frame)
    if check:
        return int(check)
    now = clock()
    jobs = []
    start = _CHECK.size
    while start < len(frame):
        deadline, size = _JOB.unpack_from(frame, start)
        start += _JOB.size
        jobs.append(Job(bytes(memoryview(frame)[start : start + size]), deadline - now, 0.0))
        start += size
    return jobs


class OutcomeCodec:
    """Outcomes as bytes: a record of fixed size for each image, and the failures by row.

    Args:
        manifest: of the model, which tells the sizes.
        failures: what may go wrong with an image through no fault of the worker; made again from their message.
    """

    def __init__(self, manifest: Manifest, failures: Sequence[type[Exception]]) -> None:
        gates = len(manifest.gated_indices)
        self._record = np.dtype(
            [
                ("logits", "<f4", (len(manifest.labels),)),
                ("margins", "<f4", (gates,)),
                ("executed", "?", (len(manifest.blocks),)),
                ("macs", "<i8"),
                ("batch_size", "<i4"),
                ("decode_s", "<f8"),
                ("inference_s", "<f8"),
            ]
        )
        self._failures = {kind.__name__: kind for kind in failures}

    def pack(self, outcomes: Sequence[Outcome]) -> list[bytes]:
        """The parts of a frame."""
        records = np.zeros(len(outcomes), self._record)
        failures: dict[str, tuple[str, str]] = {}
        for row, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failures[str(row)] = (type(outcome).__name__, str(outcome))
            else:
                records[row] = (
                    outcome.logits,
                    outcome.margins,
                    outcome.executed,
                    outcome.macs,
                    outcome.batch_size,
                    outcome.decode_s,
                    outcome.inference_s,
                )
        told = orjson.dumps(failures) if failures else b""
        return [_LENGTH.pack(len(told)), told, records.tobytes()]

    def unpack(self, frame: bytearray, jobs: Sequence[Job[bytes]]) -> list[Outcome]:
        """The outcome of each job.

        Raises:
            ValueError: these are not the outcomes of that many jobs.
        """
        (size,) = _LENGTH.unpack_from(frame)
        start = _LENGTH.size + size
        records: npt.NDArray[np.void] = np.frombuffer(frame, self._record, offset=start)
        if len(records) != len(jobs):
            raise ValueError(f"{len(records)} outcomes for {len(jobs)} jobs")
        failures = orjson.loads(memoryview(frame)[_LENGTH.size : start]) if size else {}
        return [
            self._failure(*failures[str(row)]) if str(row) in failures else _answer(record, job.queue_s)
            for row, (record, job) in enumerate(zip(records, jobs, strict=True))
        ]

    def _failure(self, name: str, message: str) -> Exception:
        if name in self._failures:
            return self._failures[name](message)
        engine_failures: dict[str, type[Exception]] = {
            kind.__name__: kind for kind in (DeadlineExceeded, InferenceFailed)
        }
        return engine_failures[name]() if name in engine_failures else UnexpectedError(f"{name}: {message}")


def _answer(record: np.void, queue_s: float) -> Answer:
    return Answer(
        logits=record["logits"],
        margins=record["margins"],
        executed=record["executed"],
        macs=int(record["macs"]),
        batch_size=int(record["batch_size"]),
        decode_s=float(record["decode_s"]),
        queue_s=queue_s,
        inference_s=float(record["inference_s"]),
    )
