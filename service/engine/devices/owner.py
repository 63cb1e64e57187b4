"""What the process of a device does: it opens models, and runs what all workers want run, merged into batches."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ArtifactError
from artifact.preprocessing import Float32Array
from service.engine.devices.memory import SharedBatch
from service.engine.devices.merging import MOST_ON_THEIR_WAY, Wanted, next_batch
from service.engine.devices.talk import OPENED, OPENING, RAN, RUN, Opening
from service.engine.errors import DeviceLost, DeviceOutOfMemory, RuntimeUnavailable
from service.engine.ipc.frames import Frames, framed
from service.engine.ipc.handshake import Refusal
from service.engine.runtimes.base import Closing, DeviceRuntime, Runtime, description

_log = logging.getLogger(__name__)

# Far more than a worker's requests, in bytes; it is asked for work by workers alone.
_MOST_FRAME = 1 << 22
_MOST_AT_ONCE = 1 << 18
_LARGEST_ELSEWHERE = 64
# What stays in the text of a failure.
_MOST_MESSAGE = 2000

OpenRuntime = Callable[[Opening], Runtime]


@dataclass(eq=False)
class _OpenModel:
    """A model that workers have opened.

    Attributes:
        runtime: runs it.
        largest: most images in a batch.
        users: workers that may want it run.
    """

    runtime: Runtime
    largest: int
    users: int = 0


@dataclass(frozen=True, eq=False)
class _Request(Wanted):
    images: npt.NDArray[Any]
    offsets: Float32Array
    ran: Future[tuple[LogitsAndMargins, int]] = field(default_factory=Future)


class DeviceOwner:
    """Owns a device for as long as the process lives.

    Args:
        open_runtime: opens a model on it, proven.
        lost: told once the device has failed; nothing can be run any more.
    """

    def __init__(self, open_runtime: OpenRuntime, lost: Callable[[], None]) -> None:
        self._open_runtime, self._lost = open_runtime, lost
        self._models: dict[str, _OpenModel] = {}
        self._opening = Lock()
        self._waiting: list[_Request] = []
        self._on_their_way: list[int] = []
        self._changed = Condition()
        for number in range(MOST_ON_THEIR_WAY):
            Thread(target=self._run_batches, name=f"batches {number}", daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """Open and run what a worker asks for, until it hangs up."""
        frames, descriptors = Frames(_MOST_FRAME), list[int]()
        opened: list[tuple[str, _OpenModel, SharedBatch]] = []
        try:
            while (frame := _received(connection, frames, descriptors)) is not None:
                if len(frame) == RUN.size:  # what opens a model is longer
                    connection.sendall(self._ran(frame, opened))
                else:
                    connection.sendall(framed(self._opened(frame, descriptors, opened)))
        except (OSError, ValueError, LookupError) as error:  # it is gone, or not itself any more
            _log.warning("a worker is not listened to any more: %r", error)
        except DeviceLost as error:
            self._end(error)
        finally:
            connection.close()
            for descriptor in descriptors:
                os.close(descriptor)
            for key, model, batch in opened:
                self._forget(key, model, batch)

    def _end(self, error: DeviceLost) -> None:
        _log.critical("the device has failed, and its process ends: %s", error)
        self._lost()

    def _opened(self, frame: bytes, descriptors: list[int], opened: list[tuple[str, _OpenModel, SharedBatch]]) -> bytes:
        asked = OPENING.validate_json(frame)
        descriptor = descriptors.pop(0)
        try:
            batch = SharedBatch(descriptor, asked.manifest, asked.rows)
        finally:
            os.close(descriptor)
        key = hashlib.sha256(frame).hexdigest()
        try:
            with self._opening:
                model = self._models.get(key) or _newly_opened(self._open_runtime(asked))
                if model.runtime.manifest != asked.manifest:
                    raise ArtifactError(f"the model in {asked.folder} has changed since a worker read it")
                self._models[key] = model
                model.users += 1
        except (ArtifactError, RuntimeUnavailable) as error:
            return OPENED.dump_json(Refusal(type(error).__name__, str(error)))
        if isinstance(model.runtime, DeviceRuntime):
            model.runtime.pin(batch.whole)
        opened.append((key, model, batch))
        return OPENED.dump_json(description(model.runtime))

    def _forget(self, key: str, model: _OpenModel, batch: SharedBatch) -> None:
        """Note that a worker wants a model no more; the last one's model leaves the device."""
        with self._opening, suppress(DeviceLost):
            if isinstance(model.runtime, DeviceRuntime):
                model.runtime.unpin(batch.whole)
            model.users -= 1
            if not model.users:
                del self._models[key]
                if isinstance(model.runtime, Closing):
                    model.runtime.close()

    def _ran(self, frame: bytes, opened: Sequence[tuple[str, _OpenModel, SharedBatch]]) -> bytes:
        number, rows, are_pixels = RUN.unpack(frame)
        _, model, batch = opened[number]
        if not 0 < rows <= batch.rows:
            raise ValueError(f"{rows} images where there is room for {batch.rows}")
        images = batch.images(are_pixels, rows)
        request = _Request(model, are_pixels, rows, model.largest, images, batch.offsets[:rows])
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
        try:
            (logits, margins), together = request.ran.result()
        except Exception as error:  # whatever a runtime raises
            return framed(RAN.pack(0), f"{type(error).__name__}: {error}"[:_MOST_MESSAGE].encode())
        batch.logits[:rows], batch.margins[:rows] = logits, margins
        return framed(RAN.pack(together))

    def _run_batches(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._next()):
                    self._changed.wait()
                rows = sum(request.rows for request in batch)
                self._on_their_way.append(rows)
            self._run(batch)
            with self._changed:
                self._on_their_way.remove(rows)
                self._changed.notify_all()

    def _next(self) -> list[_Request]:
        batch = next_batch(self._waiting, self._on_their_way)
        self._waiting = [request for request in self._waiting if request not in batch]
        return batch

    def _run(self, batch: Sequence[_Request]) -> None:
        """Run a batch and tell who asked; where it fails as a whole, each request gets a second try alone."""
        try:
            logits, margins = _outputs(batch)
        except DeviceLost as error:
            self._end(error)
            return
        except Exception as error:  # whatever a runtime raises
            if len(batch) > 1:
                _log.warning("a batch of several workers failed; theirs are run one by one", exc_info=error)
                for request in batch:
                    self._run([request])
                return
            batch[0].ran.set_exception(error)
            return
        first = 0
        for request in batch:
            rows = slice(first, first + request.rows)
            request.ran.set_result(((logits[rows], margins[rows]), len(logits)))
            first += request.rows


def _newly_opened(runtime: Runtime) -> _OpenModel:
    return _OpenModel(runtime, runtime.largest if isinstance(runtime, DeviceRuntime) else _LARGEST_ELSEWHERE)


def _outputs(batch: Sequence[_Request]) -> LogitsAndMargins:
    model = batch[0].model
    assert isinstance(model, _OpenModel)
    offsets = np.concatenate([request.offsets for request in batch])
    parts = [request.images for request in batch]
    if isinstance(model.runtime, DeviceRuntime) and len(offsets) <= model.largest:
        return model.runtime.run_parts(parts, offsets)
    images = np.concatenate(parts)
    if isinstance(model.runtime, DeviceRuntime):  # one request with more than the device has memory for
        return model.runtime.run(images, offsets)
    if batch[0].are_pixels:
        images = model.runtime.manifest.preprocessing.normalise(images)
    return _in_halves(model, images, offsets)


def _in_halves(model: _OpenModel, images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
    """Run images with a runtime that takes memory as it needs it; where there is too little, half of them at a time."""
    try:
        return model.runtime.run(images, offsets)
    except DeviceOutOfMemory as error:
        half = len(images) // 2
        if not half:
            raise
        model.largest = min(model.largest, half)
        _log.warning("batches are of %d images at most from now on: %s", model.largest, error)
    halves = (_in_halves(model, images[part], offsets[part]) for part in (slice(half), slice(half, None)))
    logits, margins = zip(*halves, strict=True)
    return np.concatenate(logits), np.concatenate(margins)


def _received(connection: socket.socket, frames: Frames, descriptors: list[int]) -> bytes | None:
    """The next frame, None where the worker has hung up; descriptors that came with it are added to the others."""
    while (frame := frames.take()) is None:
        data, came, _, _ = socket.recv_fds(connection, _MOST_AT_ONCE, 1)
        descriptors += came
        if not data:
            return None
        frames.feed(data)
    return frame
