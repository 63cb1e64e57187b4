"""Decodes images in a process of its own, which the operating system ends where one takes too much time or memory.

No look at a file can tell what it costs to decode: formats have too many ways to make little data dear. So time and
memory are bounded, whatever the file.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel

from artifact.manifest import Manifest
from artifact.preprocessing import Float32Array, UInt8Array
from service.engine.errors import WorkerLost
from service.engine.ipc.codec import UnexpectedError
from service.images.decoding import IMAGE_ERRORS, CorruptImage, ImageDecoder, ImageTooCostly
from service.settings import Settings

_log = logging.getLogger(__name__)

Kept = TypeVar("Kept")

# Between the two: the number of an image, its bytes, and the processor time that it may take; then that number again,
# what came of it, and a detail of that.
QUESTION, REPLY = struct.Struct("!QQd"), struct.Struct("!QBB")
PIXELS, REFUSED, FAILED, ENDED, NOT_BEGUN = range(5)
# In the memory that both have: the number of the image that was asked for last, and of the one that was begun last;
# then the bytes of the image, then its pixels.
NUMBERS, ASKED = struct.Struct("=QQ"), struct.Struct("=Q")
# Processor time that an image may take while nobody knows it to be dear, in seconds.
ORDINARY_S = 0.1
# Of a reply: a message follows.
_MOST_REPLY_BYTES = 65_536
# By these a decoder ends that reads or writes where it should not.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


class DecoderLost(Exception):  # noqa: N818 (a state, told as one)
    """The process has ended without being asked to."""


@dataclass(frozen=True)
class Bounds:
    """What one image may cost to decode.

    Attributes:
        cpu_s: processor time, in seconds, of an image that is known to be dear; others may take less.
        memory_bytes: memory beyond what the process has before.
    """

    cpu_s: float
    memory_bytes: int


def bounded_decoder(settings: Settings, manifest: Manifest) -> BoundedDecoder:
    """A decoder for a model, as the settings say."""
    decoder = ImageDecoder(manifest.preprocessing, settings.max_bytes, settings.max_pixels, settings.formats)
    return BoundedDecoder(decoder, Bounds(settings.max_decode_ms / 1000, settings.max_decode_mb * 1_000_000))


class BoundedDecoder:
    """Decodes image files for one model. Safe to use from several threads, each of which gets a process.

    Args:
        decoder: what the process does.
        bounds: of each image.
    """

    def __init__(self, decoder: ImageDecoder, bounds: Bounds) -> None:
        self._decoder = decoder
        self._bounds = bounds
        self._idle = [_Process(decoder, bounds)]

    @property
    def pids(self) -> list[int]:
        """The processes that wait for an image. Each has a child, which decodes and is ended where that is dear."""
        return [process.pid for process in self._idle]

    def pixels(self, data: bytes) -> UInt8Array:
        """Return the pixels, (H, W, 3), of an image that is not dear.

        Raises:
            ImageError: see `ImageDecoder.decode`; and ImageTooCostly, where it takes more than the bounds, or is dear.
            UnexpectedError: the decoder has a fault.
            WorkerLost: there is no process to decode in.
        """
        return self._decoded(data, min(ORDINARY_S, self._bounds.cpu_s), np.array)

    def pixels_of_dear(self, data: bytes) -> UInt8Array:
        """The pixels of an image that may take the longest time that is allowed."""
        return self._decoded(data, self._bounds.cpu_s, np.array)

    def decode(self, data: bytes) -> Float32Array:
        """Return the network's input, (3, H, W), of an image that is not dear."""
        return self._decoded(data, min(ORDINARY_S, self._bounds.cpu_s), self._decoder.preprocessing.normalise)

    def decode_dear(self, data: bytes) -> Float32Array:
        """The network's input of an image that may take the longest time that is allowed."""
        return self._decoded(data, self._bounds.cpu_s, self._decoder.preprocessing.normalise)

    def _decoded(self, data: bytes, cpu_s: float, taken: Callable[[UInt8Array], Kept]) -> Kept:
        self._decoder.check_bytes(data)
        try:
            try:
                return self._decode_in(self._any_process(), data, cpu_s, taken)
            except DecoderLost:  # through nobody's fault
                return self._decode_in(_Process(self._decoder, self._bounds), data, cpu_s, taken)
        except (DecoderLost, OSError) as error:
            _log.error("an image cannot be decoded, as there is no process for it: %s", error or "it ends at once")
            raise WorkerLost("died") from error

    def _any_process(self) -> _Process:
        try:
            return self._idle.pop()
        except IndexError:
            return _Process(self._decoder, self._bounds)

    def _decode_in(self, process: _Process, data: bytes, cpu_s: float, taken: Callable[[UInt8Array], Kept]) -> Kept:
        try:
            kept = taken(process.fit(data, cpu_s))
        except DecoderLost:
            process.close()
            raise
        except BaseException:
            self._idle.append(process)
            raise
        self._idle.append(process)
        return kept

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().close()


class _Process:
    """Runs `python -m service.images.decoder_main` and hands it one file after another."""

    def __init__(self, decoder: ImageDecoder, bounds: Bounds) -> None:
        self._crop = decoder.preprocessing.crop
        self._number = 0
        self._connection, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        size = NUMBERS.size + decoder.max_bytes + 3 * self._crop**2
        shared = os.memfd_create("image")
        try:
            os.ftruncate(shared, size)
            self._memory = mmap.mmap(shared, size)
            command = [sys.executable, "-m", "service.images.decoder_main", str(there.fileno()), str(shared)]
            # What libraries written in C print is of no use to anybody, and a file could make them print without end.
            self._process = subprocess.Popen(
                command, pass_fds=[there.fileno(), shared], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            self._connection.close()
            raise
        finally:
            there.close()
            os.close(shared)
        self._pixels_at = NUMBERS.size + decoder.max_bytes
        with suppress(OSError):  # it has ended, which is noticed when it is asked
            self._connection.send(orjson.dumps({"decoder": _fields(decoder), "bounds": _fields(bounds)}))
        weakref.finalize(self, _end, self._connection, self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fit(self, data: bytes, cpu_s: float) -> UInt8Array:
        """Pixels (crop, crop, 3), which are good until the next call.

        Raises:
            ImageError, UnexpectedError: see `BoundedDecoder.decode`.
            DecoderLost: the process is not there any more.
        """
        self._memory[NUMBERS.size : NUMBERS.size + len(data)] = data
        kind = NOT_BEGUN
        while kind == NOT_BEGUN:  # the process was ended just before
            kind, detail, message = self._ask(len(data), cpu_s)
        if kind == PIXELS:
            pixels = np.frombuffer(self._memory, np.uint8, 3 * self._crop**2, self._pixels_at)
            return pixels.reshape(self._crop, self._crop, 3)
        if kind == REFUSED:
            raise IMAGE_ERRORS[detail](message)
        if kind == FAILED:
            raise UnexpectedError(message)
        if detail in _CRASHES:
            raise CorruptImage("the image is damaged: its decoder crashed")
        raise ImageTooCostly("the image takes more processor time or memory to decode than one may")

    def _ask(self, size: int, cpu_s: float) -> tuple[int, int, str]:
        self._number += 1
        ASKED.pack_into(self._memory, 0, self._number)
        try:
            self._connection.send(QUESTION.pack(self._number, size, cpu_s))
            # What is told of earlier images is of a process that was ended just after it had answered.
            while reply := self._connection.recv(_MOST_REPLY_BYTES):
                number, kind, detail = REPLY.unpack_from(reply)
                if number == self._number:
                    return kind, detail, reply[REPLY.size :].decode()
        except OSError as error:
            raise DecoderLost from error
        raise DecoderLost

    def close(self) -> None:
        """End the process."""
        _end(self._connection, self._process)


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.kill()
    process.wait()


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as JSON has it."""
    told = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: each.model_dump() if isinstance(each, BaseModel) else each for name, each in told.items()}
