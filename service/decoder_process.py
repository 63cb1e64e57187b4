"""Decodes images in a process of its own, which the operating system ends where one takes too much time or memory.

No look at a file can tell what it costs to decode: formats have too many ways to make little data dear. So time and
memory are bounded, whatever the file.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel

from artifact.manifest import Manifest
from artifact.preprocessing import Float32Array, UInt8Array
from service.images import IMAGE_ERRORS, CorruptImage, ImageDecoder, ImageTooCostly
from service.settings import Settings

# Between the two: the number of an image and its bytes; that number, what came of it, and a detail of that.
QUESTION, REPLY = struct.Struct("!QQ"), struct.Struct("!QBB")
PIXELS, REFUSED, FAILED, ENDED, NOT_BEGUN = range(5)
# In the memory that both have: the number of the image that was asked for last, and of the one that was begun last;
# then the bytes of the image, then its pixels.
NUMBERS, ASKED = struct.Struct("=QQ"), struct.Struct("=Q")
# Of a reply: a message follows.
_MOST_REPLY_BYTES = 65_536
# By these a decoder ends that reads or writes where it should not.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


class DecoderLost(Exception):  # noqa: N818 (a state, told as one)
    """The process has ended without being asked to."""


class UnexpectedError(RuntimeError):
    """An exception that nobody expected, in the process; the message names it."""


@dataclass(frozen=True)
class Bounds:
    """What one image may cost to decode.

    Attributes:
        cpu_s: processor time, in seconds.
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

    def decode(self, data: bytes) -> Float32Array:
        """Return the network's input, (3, H, W).

        Raises:
            ImageError: see `ImageDecoder.decode`; and ImageTooCostly, where it takes more than the bounds.
            UnexpectedError: the decoder has a fault.
        """
        self._decoder.check_bytes(data)
        process = self._idle.pop() if self._idle else _Process(self._decoder, self._bounds)
        try:
            pixels = process.fit(data)
        except DecoderLost:  # through nobody's fault
            process.close()
            process = _Process(self._decoder, self._bounds)
            pixels = process.fit(data)
        finally:
            self._idle.append(process)
        return self._decoder.preprocessing.normalise(pixels)

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().close()


class _Process:
    """Runs `python -m service.decoder` and hands it one file after another."""

    def __init__(self, decoder: ImageDecoder, bounds: Bounds) -> None:
        self._crop = decoder.preprocessing.crop
        self._number = 0
        self._connection, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        size = NUMBERS.size + decoder.max_bytes + 3 * self._crop**2
        shared = os.memfd_create("image")
        try:
            os.ftruncate(shared, size)
            self._memory = mmap.mmap(shared, size)
            command = [sys.executable, "-m", "service.decoder", str(there.fileno()), str(shared)]
            # What libraries written in C print is of no use to anybody, and a file could make them print without end.
            self._process = subprocess.Popen(
                command, pass_fds=[there.fileno(), shared], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        finally:
            there.close()
            os.close(shared)
        self._pixels_at = NUMBERS.size + decoder.max_bytes
        with suppress(OSError):  # it has ended, which is noticed when it is asked
            self._connection.send(orjson.dumps({"decoder": _fields(decoder), "bounds": _fields(bounds)}))
        weakref.finalize(self, _end, self._connection, self._process)

    def fit(self, data: bytes) -> UInt8Array:
        """Pixels (crop, crop, 3), which are good until the next call.

        Raises:
            ImageError, UnexpectedError: see `BoundedDecoder.decode`.
            DecoderLost: the process is not there any more.
        """
        self._memory[NUMBERS.size : NUMBERS.size + len(data)] = data
        kind = NOT_BEGUN
        while kind == NOT_BEGUN:  # the process was ended just before
            kind, detail, message = self._ask(len(data))
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

    def _ask(self, size: int) -> tuple[int, int, str]:
        self._number += 1
        ASKED.pack_into(self._memory, 0, self._number)
        try:
            self._connection.send(QUESTION.pack(self._number, size))
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
