from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest

from artifact.image_files import DamagedFile, open_image
from artifact.pixels import to_rgb
from artifact.png_chunks import without_damaged_chunks, without_trailing_chunks
from tests.image_files import chunk, photograph
from tests.raw_files import gamma_chunk, raw_png

PIXELS = np.asarray(photograph(9, 7))
SAMPLES = PIXELS.astype(np.int64)


def _damaged(part: bytes) -> bytes:
    """The chunk with a wrong checksum."""
    return part[:-1] + bytes([part[-1] ^ 1])


ANCILLARY = {
    "pHYs": chunk(b"pHYs", struct.pack(">IIB", 1, 1, 1)),
    "sRGB": chunk(b"sRGB", b"\0"),
    "iCCP": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200))),
    "gAMA": gamma_chunk(1.0),
    "tEXt": chunk(b"tEXt", b"Title\0words"),
    "unknown": chunk(b"abCd", b"123"),
}
NONSENSE = {
    "iCCP of another compression": chunk(b"iCCP", b"p\0\1" + bytes(20)),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short cHRM": chunk(b"cHRM", b"\0"),
    "empty sRGB": chunk(b"sRGB", b""),
    "short pHYs": chunk(b"pHYs", b"\0"),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "zTXt of another compression": chunk(b"zTXt", b"Title\0\7abc"),
    "bomb of text": chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(2_000_000))),
}


@pytest.mark.parametrize("part", [*map(_damaged, ANCILLARY.values()), *NONSENSE.values()], ids=[*ANCILLARY, *NONSENSE])
def test_damaged_ancillary_chunk_is_ignored(part: bytes) -> None:
    assert np.array_equal(np.asarray(to_rgb(open_image(raw_png(SAMPLES, 8, 2, part)))), PIXELS)


@pytest.mark.parametrize("part", NONSENSE.values(), ids=NONSENSE)
def test_chunk_behind_the_pixels_says_nothing_of_them(part: bytes) -> None:
    assert np.array_equal(np.asarray(to_rgb(open_image(raw_png(SAMPLES, 8, 2, behind=part)))), PIXELS)


def test_sound_chunk_beside_a_damaged_one_is_heeded() -> None:
    file = raw_png(SAMPLES, 8, 2, _damaged(ANCILLARY["pHYs"]), gamma_chunk(1.0))
    lighter = np.asarray(to_rgb(open_image(raw_png(SAMPLES, 8, 2, gamma_chunk(1.0)))))
    assert lighter.mean() > PIXELS.mean() + 20
    assert np.array_equal(np.asarray(to_rgb(open_image(file))), lighter)


def test_thousands_of_damaged_chunks_cost_little() -> None:
    bomb = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000)))
    file = raw_png(SAMPLES, 8, 2, *[bomb] * 5_000)
    started = time.process_time()
    assert np.array_equal(np.asarray(to_rgb(open_image(file))), PIXELS)
    assert time.process_time() - started < 0.5  # each of them takes a millisecond


def test_damaged_critical_chunk_is_damage() -> None:
    data = raw_png(SAMPLES, 8, 2)
    with pytest.raises(DamagedFile):
        open_image(data[:32] + bytes([data[32] ^ 1]) + data[33:])  # the checksum of IHDR
    palette = chunk(b"PLTE", bytes(range(256)) * 3)
    with pytest.raises(DamagedFile):
        open_image(raw_png(SAMPLES[..., :1], 8, 3, _damaged(palette)))


def test_palette_and_its_transparency_are_kept() -> None:
    palette, transparent = chunk(b"PLTE", bytes(range(256)) * 3), chunk(b"tRNS", b"\0" * 255)
    indices = np.full((4, 4, 1), 7)
    file = raw_png(indices, 8, 3, palette, transparent, NONSENSE["short gAMA"])
    assert np.unique(np.asarray(to_rgb(open_image(file)))).tolist() == [255]


def test_what_is_left_out_is_only_what_is_not_needed() -> None:
    sound = raw_png(SAMPLES, 8, 2, gamma_chunk(1.0))
    assert without_damaged_chunks(sound) == sound
    assert without_trailing_chunks(sound) == sound
    assert without_damaged_chunks(raw_png(SAMPLES, 8, 2, gamma_chunk(1.0), gamma_chunk(0.5))) == sound
    exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
    behind = raw_png(SAMPLES, 8, 2, behind=exif + ANCILLARY["tEXt"])
    assert without_trailing_chunks(behind) == raw_png(SAMPLES, 8, 2, behind=exif)


@pytest.mark.parametrize("length", [8, 12, 20, 33, 40, 60])
def test_file_that_is_cut_off_stays_so(length: int) -> None:
    cut = raw_png(SAMPLES, 8, 2)[:length]
    assert without_trailing_chunks(cut) == cut
    with pytest.raises((DamagedFile, OSError)):
        open_image(cut).load()
