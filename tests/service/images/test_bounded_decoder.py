from __future__ import annotations

import io
import os
import re
import signal
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.preprocessing import Preprocessing
from service.engine.errors import WorkerLost
from service.images.bounded_decoder import BoundedDecoder, Bounds
from service.images.decoding import CorruptImage, EmptyImage, ImageDecoder, ImageTooCostly, ImageTooLarge, NotAnImage
from tests.image_files import encoded, photograph, solid
from tests.processes import children, is_running
from tests.runtimes import wait_until

pytestmark = pytest.mark.slow

SIDE = 8
PLAIN = ImageDecoder(Preprocessing(resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1)), 4_000_000, 200_000_000)
BOUNDS = Bounds(cpu_s=0.2, memory_bytes=256_000_000)


def _png(width: int, height: int, *before: tuple[bytes, bytes]) -> bytes:
    """A black image of one bit a pixel, with chunks before it; small, however many pixels it has."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack("!IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.fixture
def decoder() -> Iterator[BoundedDecoder]:
    decoder = BoundedDecoder(PLAIN, BOUNDS)
    yield decoder
    decoder.close()


def _slow(scans: int = 500) -> bytes:
    """A progressive JPEG whose last scan comes again and again, each time touching every pixel."""
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def _fork(decoder: BoundedDecoder) -> int:
    """The process that decodes, which the decoder's own process has forked."""
    (pid,) = decoder.pids
    wait_until(lambda: bool(children(pid)))
    (child,) = children(pid)
    return child


def _processor_time(pid: int) -> int:
    """Ticks that a process has run for itself."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_image_comes_out_as_without_bounds(decoder: BoundedDecoder) -> None:
    for grey in (10, 200):
        assert np.array_equal(decoder.decode(solid(grey)), PLAIN.decode(solid(grey)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyImage),
        (b"text", NotAnImage),
        (_png(40, 40).replace(b"IDATx", b"IDATy"), CorruptImage),
        (bytes(4_000_001), ImageTooLarge),
    ],
    ids=["empty", "text", "damaged", "large"],
)
def test_what_is_no_image_is_told_as_without_bounds(
    decoder: BoundedDecoder, data: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error) as without:
        PLAIN.decode(data)
    with pytest.raises(error) as within:
        decoder.decode(data)
    assert str(within.value) == str(without.value)


def test_image_that_takes_too_long_is_refused_and_the_next_is_decoded_at_once(decoder: BoundedDecoder) -> None:
    decoder.decode(solid(10))
    with pytest.raises(ImageTooCostly, match="more processor time or memory"):
        decoder.decode_dear(_slow())
    assert np.array_equal(decoder.decode(solid(20)), PLAIN.decode(solid(20)))


def test_image_that_is_not_known_to_be_dear_may_take_less() -> None:
    decoder = BoundedDecoder(PLAIN, Bounds(cpu_s=30, memory_bytes=256_000_000))
    dear = _slow(scans=200)
    assert decoder.decode_dear(dear).shape == (3, SIDE, SIDE)
    with pytest.raises(ImageTooCostly):
        decoder.decode(dear)
    decoder.close()


def test_process_that_takes_the_place_of_another_has_nothing_to_load(decoder: BoundedDecoder) -> None:
    decoder.decode(solid(10))
    before = decoder.pids
    for _ in range(5):
        os.kill(_fork(decoder), signal.SIGKILL)
        decoder.decode(solid(10))
    assert decoder.pids == before
    assert "State:\tZ" not in Path(f"/proc/{before[0]}/status").read_text()


def test_image_that_takes_too_much_memory_is_refused() -> None:
    decoder = BoundedDecoder(PLAIN, Bounds(cpu_s=10, memory_bytes=256_000_000))
    # 100 million pixels, which are 400 MB in 8-bit RGB.
    with pytest.raises(ImageTooCostly, match="takes more than 256 MB to decode"):
        decoder.decode_dear(_png(10_000, 10_000))
    decoder.decode(solid(10))
    decoder.close()


def test_image_at_which_a_decoder_crashes_is_damaged() -> None:
    decoder = BoundedDecoder(PLAIN, Bounds(cpu_s=30, memory_bytes=256_000_000))
    decoder.decode(solid(10))
    with ThreadPoolExecutor(1) as others:
        fork = _fork(decoder)
        before = _processor_time(fork)
        refused = others.submit(decoder.decode_dear, _slow())
        wait_until(lambda: _processor_time(fork) > before)  # so that it has begun
        os.kill(fork, signal.SIGSEGV)
        with pytest.raises(CorruptImage, match="its decoder crashed"):
            refused.result()
    decoder.close()


def test_decoder_that_was_ended_between_two_images_costs_neither(decoder: BoundedDecoder) -> None:
    for _ in range(3):
        decoder.decode(solid(10))
        os.kill(_fork(decoder), signal.SIGKILL)
        assert np.array_equal(decoder.decode(solid(20)), PLAIN.decode(solid(20)))


def test_decoder_all_of_which_was_ended_is_started_again(decoder: BoundedDecoder) -> None:
    decoder.decode(solid(10))
    os.kill(*decoder.pids, signal.SIGKILL)
    assert np.array_equal(decoder.decode(solid(20)), PLAIN.decode(solid(20)))


def test_threads_do_not_wait_for_each_other(decoder: BoundedDecoder) -> None:
    with ThreadPoolExecutor(4) as threads:
        greys = range(0, 200, 5)
        for grey, decoded in zip(greys, threads.map(lambda grey: decoder.decode(solid(grey)), greys), strict=True):
            assert np.array_equal(decoded, PLAIN.decode(solid(grey)))


def test_nothing_is_left_of_a_decoder_that_is_closed() -> None:
    decoder = BoundedDecoder(PLAIN, BOUNDS)
    decoder.decode(solid(10))
    fork = _fork(decoder)
    decoder.close()
    wait_until(lambda: not is_running(fork))


def test_process_may_open_nothing_write_nothing_and_gain_nothing(decoder: BoundedDecoder) -> None:
    decoder.decode(solid(10))
    fork = _fork(decoder)
    told = Path(f"/proc/{fork}/limits").read_text().splitlines()[1:]
    limits = {line[:26].strip(): line[26:].split()[0] for line in told}
    assert (limits["Max file size"], limits["Max core file size"]) == ("0", "0")
    assert int(limits["Max open files"]) <= 32
    assert "NoNewPrivs:\t1" in Path(f"/proc/{fork}/status").read_text()


def test_question_that_was_asked_again_is_not_answered_twice(decoder: BoundedDecoder) -> None:
    for _ in range(5):
        decoder.decode(solid(10))
        os.kill(_fork(decoder), signal.SIGKILL)
        with pytest.raises(ImageTooCostly):
            decoder.decode(_slow())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF"])
def test_damaged_header_is_told_as_damaged_and_ends_no_process(decoder: BoundedDecoder, kind: str) -> None:
    decoder.decode(solid(10))
    fork = _fork(decoder)
    with pytest.raises(CorruptImage):
        decoder.decode(encoded(photograph(40, 30), kind)[:30])
    assert _fork(decoder) == fork


def test_lack_of_a_process_is_nobodys_fault(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.decode(solid(10))
    fork = _fork(decoder)
    os.kill(*decoder.pids, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{fork}").exists())
    monkeypatch.setattr("service.images.bounded_decoder.sys.executable", "/nowhere/python")
    with pytest.raises(WorkerLost):
        decoder.decode(solid(20))
    monkeypatch.undo()
    assert np.array_equal(decoder.decode(solid(20)), PLAIN.decode(solid(20)))


def test_several_threads_of_a_decoder_may_run() -> None:
    """HEIC's has one. A limit that forbids threads would hold for ordinary users only, and tests may be run by root."""
    decoder = BoundedDecoder(PLAIN, BOUNDS)
    decoder.decode(solid(10))
    told = Path(f"/proc/{_fork(decoder)}/limits").read_text()
    decoder.close()
    assert re.search(r"Max processes +(unlimited|[1-9]\d*)", told)
