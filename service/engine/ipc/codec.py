"""What the service and its worker processes say to each other: frames with nothing in them but numbers and text.

Nothing is pickled: a worker decodes what strangers sent, and whatever gets hold of it must not get hold of the service
as well.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from artifact.manifest import Manifest
from service.engine.errors import DeadlineExceeded, InferenceFailed, InvalidTensor, WorkerLost
from service.engine.ipc.frames import framed
from service.engine.job import Answer, ImageJob, Outcome

# Queued at and deadline, on the clock of all processes; gate offset; whether it is dear; whether it is a
# tensor; length of the image.
_JOB = struct.Struct("!ddd??Q")
_LENGTH = struct.Struct("!Q")

# Before the jobs: number of the model; where there are none, how many images of its own a worker is to run as a check,
# else 0.
_HEAD = struct.Struct("!II")


class UnexpectedError(RuntimeError):
    """An unexpected exception in another process; the message names it."""


class Check(NamedTuple):
    """What a worker is asked that is to run a model on images of its own.

    Attributes:
        model: number of the model.
        batch_size: how many images.
    """

    model: int
    batch_size: int


def pack_jobs(jobs: Sequence[ImageJob]) -> bytes:
    """A frame that asks for a batch, of one model."""
    parts = [_HEAD.pack(jobs[0].model, 0)]
    for job in jobs:
        size = len(job.image)
        head = _JOB.pack(job.queued_at, job.deadline, job.gate_offset, job.dear, job.is_tensor, size)
        parts += (head, job.image)
    return framed(*parts)


def pack_check(check: Check) -> bytes:
    """A frame that asks for a check."""
    return framed(_HEAD.pack(*check))


def unpack_jobs(frame: bytes) -> list[ImageJob] | Check:
    """The batch or the check that a frame asks for."""
    model, batch_size = _HEAD.unpack_from(frame)
    if batch_size:
        return Check(model, batch_size)
    jobs = []
    start = _HEAD.size
    while start < len(frame):
        queued_at, deadline, gate_offset, dear, is_tensor, size = _JOB.unpack_from(frame, start)
        start += _JOB.size
        image = frame[start : start + size]
        jobs.append(
            ImageJob(
                image,
                queued_at,
                deadline,
                gate_offset=gate_offset,
                dear=dear,
                is_tensor=is_tensor,
                model=model,
            )
        )
        start += size
    return jobs


class OutcomeCodec:
    """Outcomes as bytes: a record of fixed size for each image, and the failures by row.

    Args:
        manifest: of the model, which tells the sizes.
        failures: what may go wrong with an image through no fault of the worker; made again from their message.
    """

    def __init__(self, manifest: Manifest, failures: Sequence[type[Exception]]) -> None:
        classes, gates, blocks = len(manifest.labels), len(manifest.gated_indices), len(manifest.blocks)
        # In the order of an answer's; whole numbers are MACs and batch size.
        self._record = struct.Struct(f"<{classes}f{gates}f{blocks}?qiddd")
        self._ends = (classes, classes + gates, classes + gates + blocks)  # of logits, margins, executed
        told: tuple[type[Exception], ...] = (InvalidTensor, *failures)
        self._failures = {kind.__name__: kind for kind in told}

    def pack(self, outcomes: Sequence[Outcome]) -> bytes:
        """A frame that tells them."""
        records: list[bytes] = []
        failures: dict[str, tuple[str, str]] = {}
        for row, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failures[str(row)] = (type(outcome).__name__, str(outcome))
                records.append(bytes(self._record.size))
            else:
                logits, margins, executed, *rest = outcome
                records.append(self._record.pack(*logits, *margins, *executed, *rest))
        told = orjson.dumps(failures) if failures else b""
        return framed(_LENGTH.pack(len(told)), told, *records)

    def unpack(self, frame: bytes, jobs: int) -> list[Outcome]:
        """The outcome of each of so many jobs; of a check, which is none, what was wrong if anything was.

        Raises:
            ValueError: these are not the outcomes of that many jobs.
        """
        (size,) = _LENGTH.unpack_from(frame)
        start = _LENGTH.size + size
        count, cut = divmod(len(frame) - start, self._record.size)
        if cut:
            raise ValueError(f"a record of {cut} bytes")
        if count != jobs and (jobs or count > 1):
            raise ValueError(f"{count} outcomes for {jobs} jobs")
        failures = orjson.loads(frame[_LENGTH.size : start]) if size else {}
        return [
            self._failure(*failures[str(row)]) if str(row) in failures else self._answer(frame, at, jobs)
            for row, at in enumerate(range(start, len(frame), self._record.size))
        ]

    def _answer(self, frame: bytes, at: int, jobs: int) -> Answer:
        told = self._record.unpack_from(frame, at)
        classes, gates, blocks = self._ends
        answer = Answer(told[:classes], told[classes:gates], told[gates:blocks], *told[blocks:])
        if not 1 <= answer.batch_size <= jobs:
            raise ValueError(f"an image of {jobs} ran in a batch of {answer.batch_size}")
        return answer

    def _failure(self, name: str, message: str) -> Exception:
        if name in self._failures:
            return self._failures[name](message)
        if name == WorkerLost.__name__:
            return WorkerLost("died")
        engine_failures: dict[str, type[Exception]] = {
            kind.__name__: kind for kind in (DeadlineExceeded, InferenceFailed)
        }
        return engine_failures[name]() if name in engine_failures else UnexpectedError(f"{name}: {message}")
