"""A runtime whose network is run by the process of a device, together with what other workers want run there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.agreement import LogitsAndMargins
from artifact.manifest import Manifest, read_manifest
from artifact.preprocessing import Float32Array
from service.engine.devices.memory import SharedBatch, shared_memory
from service.engine.devices.talk import OPENED, OPENING, RAN, RUN, Opening
from service.engine.errors import DeviceLost, InferenceFailed
from service.engine.ipc.frames import Frames, framed, receive
from service.engine.ipc.handshake import Refusal
from service.engine.runtimes.base import Candidate, Precision, RuntimeDescription, RuntimeName

# Images of one request; more come in several.
_ROWS = 32


class DeviceClient:
    """A worker's connection to the process of a device. Safe to use from several threads, one at a time.

    Args:
        connection: to it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames()
        self._turn = Lock()
        self._opened = 0

    def open(self, folder: Path, runtime: RuntimeName, precision: Precision, cache: Path | None) -> RemoteRuntime:
        """Open an artifact on the device.

        Raises:
            ArtifactError: it is missing or damaged.
            RuntimeUnavailable: nothing on that device runs it and gives the trained network's answers.
            DeviceLost: the device's process is gone.
        """
        manifest = read_manifest(folder)
        memory = shared_memory(manifest, _ROWS)
        asked = Opening(str(folder), manifest, runtime, precision, str(cache) if cache else None, _ROWS)
        with self._turn:
            try:
                told = framed(OPENING.dump_json(asked))
                socket.send_fds(self._connection, [told[:1]], [memory])
                self._connection.sendall(told[1:])
                said = OPENED.validate_json(receive(self._connection, self._frames))
                batch = SharedBatch(memory, manifest, _ROWS)
            except (OSError, EOFError) as error:
                raise DeviceLost("the process of the device has ended") from error
            finally:
                os.close(memory)
            if isinstance(said, Refusal):
                raise said.error
            self._opened += 1
            return RemoteRuntime(self, self._opened - 1, manifest, said, batch)

    def run(self, model: int, images: int, are_pixels: bool) -> None:
        """Have the first images of a model's memory run.

        Raises:
            InferenceFailed: they cannot be.
            DeviceLost: the device's process is gone.
        """
        with self._turn:
            try:
                self._connection.sendall(framed(RUN.pack(model, images, are_pixels)))
                said = receive(self._connection, self._frames)
            except (OSError, EOFError) as error:
                raise DeviceLost("the process of the device has ended") from error
        if not RAN.unpack_from(said)[0]:
            raise InferenceFailed from RuntimeError(said[RAN.size :].decode())


class RemoteRuntime:
    """See `Runtime`. Images may be pixels as well, (N, side, side, 3) uint8, which the device normalises.

    Args:
        client: its connection to the device's process.
        number: of the model on that connection.
        manifest: of the model.
        described: how the device runs it.
        batch: memory that both share.
    """

    runs_batches = True

    def __init__(
        self, client: DeviceClient, number: int, manifest: Manifest, described: RuntimeDescription, batch: SharedBatch
    ) -> None:
        self.manifest = manifest
        self.name, self.device, self.precision = described.name, described.device, described.precision
        self.candidates: tuple[Candidate, ...] = described.candidates
        self._client, self._number, self._batch = client, number, batch
        self._turn = Lock()

    def run(self, images: npt.NDArray[Any], gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        rows = self._batch.rows
        answers = [
            self._run(images[first : first + rows], gate_offset[first : first + rows])
            for first in range(0, len(images), rows)
        ]
        logits, margins = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(margins)

    def _run(self, images: npt.NDArray[Any], gate_offset: Float32Array) -> LogitsAndMargins:
        batch, count, are_pixels = self._batch, len(images), images.dtype == np.uint8
        with self._turn:
            batch.images(are_pixels, count)[:] = images
            batch.offsets[:count] = gate_offset
            self._client.run(self._number, count, are_pixels)
            return batch.logits[:count].copy(), batch.margins[:count].copy()
