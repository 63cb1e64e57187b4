"""TIFFs of all depths, forms, orders and layouts: read right, or refused and told what they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from artifact.image_files import UnsupportedFile, open_image
from artifact.pixels import to_rgb
from artifact.tiff_samples import unsupported_tiff
from tests.raw_files import raw_tiff

LAYOUTS = [
    # channels, photometric interpretation, extra sample
    (1, 1, None),
    (1, 0, None),
    (2, 1, 1),
    (2, 1, 2),
    (3, 2, None),
    (4, 2, 1),
    (4, 2, 2),
    (4, 5, None),
]
FORMS = [(1, 8), (1, 12), (1, 16), (1, 32), (2, 8), (2, 16), (2, 32), (3, 32)]


def _fractions(channels: int, extra: int | None) -> np.ndarray:
    random = np.random.default_rng(channels)
    values = random.random((11, 6, channels))
    if extra is not None:
        values[..., -1] = 1  # what transparency looks like is not the matter here
    return values


def _stored(fractions: np.ndarray, form: int, bits: int) -> np.ndarray:
    if form == 3:
        return fractions.astype(np.float32).view(np.uint32).astype(np.int64)
    lowest = -(2 ** (bits - 1)) if form == 2 else 0
    return np.rint(fractions * (2**bits - 1)).astype(np.int64) + lowest


def _shown(fractions: np.ndarray, photometric: int) -> np.ndarray:
    if photometric == 5:
        return 255 * (1 - fractions[..., :3]) * (1 - fractions[..., 3:])
    if photometric == 2:
        return 255 * fractions[..., :3]
    grey = fractions[..., :1] if photometric == 1 else 1 - fractions[..., :1]
    return np.repeat(255 * grey, 3, axis=-1)


@pytest.mark.parametrize(("channels", "photometric", "extra"), LAYOUTS)
@pytest.mark.parametrize(("form", "bits"), FORMS)
def test_tiff_is_read_right_or_refused(
    channels: int, photometric: int, extra: int | None, form: int, bits: int
) -> None:
    fractions = _fractions(channels, extra)
    for order, planar, deflate in itertools.product("<>", (False, True), (False, True)):
        if planar and channels == 1:
            continue
        stored = _stored(fractions, form, bits)
        file = raw_tiff(stored, bits, photometric, order, form, planar, deflate, extra)
        try:
            seen = np.asarray(to_rgb(open_image(file)))
        except UnsupportedFile:
            continue
        apart = np.abs(seen - _shown(fractions, photometric)).max()
        assert apart <= 2, (order, planar, deflate)


@pytest.mark.parametrize(
    ("channels", "photometric", "form", "bits", "order", "planar", "deflate", "extra"),
    [
        (1, 1, 1, 12, "<", False, False, None),
        (1, 1, 1, 32, "<", False, True, None),
        (1, 1, 2, 8, ">", False, True, None),
        (1, 1, 2, 16, "<", False, True, None),
        (1, 1, 2, 32, ">", False, False, None),
        (1, 0, 3, 32, "<", False, True, None),
        (2, 1, 1, 8, ">", False, True, 1),
        (3, 2, 1, 16, "<", True, False, None),
        (3, 2, 1, 16, ">", True, False, None),
        (3, 2, 1, 16, ">", True, True, None),
        (4, 2, 1, 16, "<", True, False, 2),
        (4, 5, 1, 16, "<", False, False, None),
    ],
)
def test_these_kinds_are_read(
    channels: int, photometric: int, form: int, bits: int, order: str, planar: bool, deflate: bool, extra: int | None
) -> None:
    fractions = _fractions(channels, extra)
    file = raw_tiff(_stored(fractions, form, bits), bits, photometric, order, form, planar, deflate, extra)
    assert np.abs(np.asarray(to_rgb(open_image(file))) - _shown(fractions, photometric)).max() <= 2


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (
            raw_tiff(_stored(_fractions(4, None), 1, 16), 16, 5, planar=True),
            "a TIFF of CMYK with 4 planes of 16 bits, uncompressed",
        ),
        (
            raw_tiff(_stored(_fractions(2, 2), 1, 8), 8, 1, planar=True, deflate=True, extra=2),
            "a TIFF of grey with 2 planes of 8 bits, compression 8",
        ),
        (
            raw_tiff(_stored(_fractions(1, None), 2, 16), 16, 1, ">", form=2, deflate=True),
            "a big-endian TIFF of grey with 1 signed samples of 16 bits, compression 8",
        ),
        (
            raw_tiff(_stored(_fractions(1, None), 3, 32), 32, 1, ">", form=3, deflate=True),
            "a big-endian TIFF of grey with 1 floating-point samples of 32 bits, compression 8",
        ),
        (
            raw_tiff(_stored(_fractions(3, None), 1, 8), 8, 6),
            "a TIFF of YCbCr with 3 samples of 8 bits, uncompressed",
        ),
    ],
)
def test_kind_that_the_decoder_reads_wrong_is_refused(file: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedFile, match=f"this is {kind}"):
        open_image(file)


def test_directory_that_cannot_be_read_is_no_kind() -> None:
    assert unsupported_tiff(b"II*\0" + b"\xff" * 20) is None
    assert unsupported_tiff(b"II*\0") is None
    assert unsupported_tiff(raw_tiff(np.zeros((2, 2, 1), np.int64), 8, 1)) is not None
