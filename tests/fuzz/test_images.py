from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.preprocessing import Preprocessing
from service.images.decoding import ImageDecoder, ImageError
from tests.fuzz.mutations import mutated_files, sound_files

SIDE = 8
MAX_PIXELS = 4_000_000
DECODER = ImageDecoder(Preprocessing(resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1)), 1_000_000, MAX_PIXELS)
# Far above what four million pixels take.
LONGEST_S, MOST_BYTES = 2.0, 300_000_000


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _assert_decoded_or_refused(data: bytes) -> None:
    peak, started = _peak_bytes(), time.process_time()
    try:
        pixels = DECODER.decode(data)
    except ImageError as error:
        message = str(error)
        assert message.splitlines() == [message]
    else:
        assert (pixels.shape, pixels.dtype) == ((3, SIDE, SIDE), np.float32)
        assert np.isfinite(pixels).all()
    assert time.process_time() - started < LONGEST_S
    assert _peak_bytes() - peak < MOST_BYTES


@pytest.mark.parametrize("number", range(len(sound_files())))
def test_sound_file_is_decoded(number: int) -> None:
    assert DECODER.decode(sound_files()[number]).shape == (3, SIDE, SIDE)


# Pillow warns of damage that it reads on in spite of.
@pytest.mark.filterwarnings("ignore")
@given(mutated_files())
def test_mutated_file_is_decoded_or_refused_in_little_time_and_memory(data: bytes) -> None:
    _assert_decoded_or_refused(data)


@pytest.mark.filterwarnings("ignore")
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF"]), st.binary()
)
def test_beginning_of_a_file_and_garbage_is_refused(magic: bytes, garbage: bytes) -> None:
    _assert_decoded_or_refused(magic + garbage)
