from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from artifact.image_files import DamagedFile, UnsupportedFile, open_image
from artifact.masked_bmp import MaskedBmpFile
from artifact.pixels import to_rgb
from tests.raw_files import raw_bmp

A1555 = (0x7C00, 0x3E0, 0x1F, 0x8000)


@pytest.mark.parametrize("header_bytes", [56, 108, 124])
def test_alpha_mask_is_heeded(header_bytes: int) -> None:
    packed = np.array([[0xFC00, 0x7C00, 0x8000]], np.uint16)  # red, red but transparent, black
    image = open_image(raw_bmp(packed, A1555, header_bytes))
    assert np.asarray(to_rgb(image)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 0]]]


def test_alpha_mask_may_come_with_a_compression_of_its_own() -> None:
    packed = np.array([[0xFC00, 0x7C00]], np.uint16)
    image = open_image(raw_bmp(packed, A1555, 40, compression=6))
    assert np.asarray(to_rgb(image)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_header_without_an_alpha_mask_has_no_alpha() -> None:
    packed = np.array([[0x00F, 0x0F0]], np.uint16)
    image = open_image(raw_bmp(packed, (0xF00, 0xF0, 0xF), 40))
    assert np.asarray(to_rgb(image)).tolist() == [[[0, 0, 255], [0, 255, 0]]]


def test_alpha_that_is_0_everywhere_is_none() -> None:
    image = open_image(raw_bmp(np.full((2, 2), 0x7C00, np.uint16), A1555))
    assert np.unique(np.asarray(to_rgb(image)).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_usual_masks_are_left_to_pillow() -> None:
    image = open_image(raw_bmp(np.zeros((2, 2), np.uint16), (0xF800, 0x7E0, 0x1F, 0)))
    assert not isinstance(image, MaskedBmpFile)
    assert image.mode == "RGB"


def test_large_image_is_decoded_in_blocks(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    file = raw_bmp(rng.integers(0, 65536, (19, 50)).astype(np.uint16), A1555)
    whole = np.asarray(to_rgb(open_image(file)))
    monkeypatch.setattr("artifact.masked_bmp._BLOCK_PIXELS", 120)
    assert np.array_equal(np.asarray(to_rgb(open_image(file))), whole)


def test_missing_pixels_are_damage() -> None:
    file = raw_bmp(np.zeros((8, 8), np.uint16), A1555)
    image = open_image(file[:-1])
    assert isinstance(image, Image.Image)
    with pytest.raises(ValueError, match="missing"):
        image.load()


@pytest.mark.parametrize("length", [18, 40, 53, 60])
def test_header_that_is_cut_off_is_damage(length: int) -> None:
    with pytest.raises((DamagedFile, UnsupportedFile)):
        open_image(raw_bmp(np.zeros((8, 8), np.uint16), A1555)[:length])
