"""What the process of a decoder runs: python -m service.decoder SOCKET MEMORY.

It forks for the images. The fork decodes one after another; where it takes more than it may for one, the operating
system ends it, and the next fork is there at once, as it has nothing to load.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import signal
import socket
import sys
import time
import warnings
from typing import Any

import orjson
from PIL import Image

from artifact.image_files import open_image
from artifact.preprocessing import Preprocessing
from service.engine.operating_system import address_space_bytes, end_with_parent, forbid_new_privileges, release_memory
from service.images.bounded_decoder import ASKED, ENDED, FAILED, NOT_BEGUN, NUMBERS, PIXELS, QUESTION, REFUSED, REPLY
from service.images.decoding import IMAGE_ERRORS, CorruptImage, ImageDecoder, ImageError, ImageTooCostly

# Files that the process may have open: its own few, and those of Python modules that are loaded when they are needed.
_MOST_FILES = 32
# An image that took so long may have taken much memory as well, which goes back to the system.
_LONG_S = 0.02
# What part of an image's memory may be kept when it is done with; and how a process ends that keeps more.
_MOST_KEPT, _RENEWED = 1 / 8, 3
# To look costs as much as half a small image, so that is not done after each.
_LOOKS_EVERY = 16
# Decoders need at least so much memory for a pixel, and some twice as much.
_BYTES_A_PIXEL = 12
# What stays in the text of an unexpected error.
_MOST_MESSAGE = 2000


def main() -> None:
    """Decode for whoever has the other end of the socket, until that is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever stops the service lets it finish what it accepted
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    connection, shared = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    memory = mmap.mmap(shared, os.fstat(shared).st_size)
    os.close(shared)
    options = orjson.loads(connection.recv(65_536) or b"null")
    if options is None:
        return
    Image.init()  # all that reads images is loaded before
    gc.collect()
    gc.freeze()  # so that forks share it
    while True:
        child = os.fork()
        if not child:
            _Decoding(connection, memory, options).run()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not status:  # the other end is closed
            return
        asked, begun = NUMBERS.unpack_from(memory)
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        connection.send(REPLY.pack(asked, ENDED if begun == asked else NOT_BEGUN, ended_by))


class _Decoding:
    def __init__(self, connection: socket.socket, memory: mmap.mmap, options: dict[str, Any]) -> None:
        self._connection = connection
        self._memory = memory
        preprocessing = Preprocessing(**options["decoder"]["preprocessing"])
        self._decoder = ImageDecoder(**{**options["decoder"], "preprocessing": preprocessing})
        self._memory_bytes: int = options["bounds"]["memory_bytes"]

    def run(self) -> None:
        """Decode until the other end of the connection is closed."""
        end_with_parent()
        space = address_space_bytes()
        _confine(space, self._memory_bytes)
        warnings.simplefilter("ignore")  # Pillow's, of what stands in images
        while question := self._connection.recv(QUESTION.size):
            number, size, cpu_s = QUESTION.unpack(question)
            if number != ASKED.unpack_from(self._memory)[0]:  # it has been asked again since, as a process was ended
                continue
            ASKED.pack_into(self._memory, ASKED.size, number)
            began = time.process_time()
            kind, detail, message = self._decode(self._memory[NUMBERS.size : NUMBERS.size + size], cpu_s)
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._connection.send(REPLY.pack(number, kind, detail) + message.encode("utf-8", "backslashreplace"))
            took_long = time.process_time() - began > _LONG_S
            if took_long:
                release_memory()
            if (took_long or number % _LOOKS_EVERY == 0) and self._keeps_much(space):
                os._exit(_RENEWED)

    def _keeps_much(self, space: int) -> bool:
        """Whether libraries keep so much for later that another image could lack it."""
        return address_space_bytes() > space + self._memory_bytes * _MOST_KEPT

    def _decode(self, data: bytes, cpu_s: float) -> tuple[int, int, str]:
        # Its signal ends the process, in the middle of whatever a library does.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            pixels = self._decoder.fit(data)
            at = NUMBERS.size + self._decoder.max_bytes
            self._memory[at : at + pixels.nbytes] = pixels.tobytes()
        except CorruptImage as error:
            return self._refusal(self._too_large() if self._lacked_memory(data) else error)
        except ImageError as error:
            return self._refusal(error)
        except MemoryError:
            return self._refusal(self._too_large())
        except Exception as error:  # the service logs it
            return FAILED, 0, f"{type(error).__name__}: {error}"[:_MOST_MESSAGE]
        return PIXELS, 0, ""

    def _lacked_memory(self, data: bytes) -> bool:
        """Whether that may be why the image could not be decoded: not all libraries tell."""
        try:
            width, height = open_image(data, self._decoder.formats).size
        except Exception:  # it is damaged
            return False
        return width * height * _BYTES_A_PIXEL > self._memory_bytes

    def _too_large(self) -> ImageTooCostly:
        return ImageTooCostly(f"the image takes more than {self._memory_bytes // 1_000_000} MB to decode")

    def _refusal(self, error: ImageError) -> tuple[int, int, str]:
        return REFUSED, IMAGE_ERRORS.index(type(error)), str(error)


def _confine(space: int, memory_bytes: int) -> None:
    """Let this process do little more than compute, as far as an ordinary user may forbid himself the rest.

    A limit of processes would be one of threads too, of which the decoder of HEIC needs one.
    """
    forbid_new_privileges()
    if space:
        _limit(resource.RLIMIT_AS, space + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MOST_FILES)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main()
