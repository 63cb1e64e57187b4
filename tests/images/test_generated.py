from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import artifact.formats  # noqa: F401  # HEIC can be written once it can be read
from artifact.preprocessing import Preprocessing
from service.images.decoding import ImageDecoder
from tests.image_files import encoded
from tests.images.generated import SIDE, Generated, generated

DECODER = ImageDecoder(Preprocessing(resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1)), 10**6, 10**6)


@pytest.mark.parametrize("file", list(generated()), ids=lambda file: file.name)
def test_network_sees_what_a_viewer_shows(file: Generated) -> None:
    seen = DECODER.decode(file.data).transpose(1, 2, 0) * 255
    apart = np.abs(seen - file.expected)
    assert apart.max() <= file.tolerance, f"{apart.max()} at {np.unravel_index(apart.argmax(), apart.shape)}"


def test_multi_picture_jpeg_is_its_first_picture() -> None:
    first, second = Image.new("RGB", (SIDE, SIDE), (200, 30, 60)), Image.new("RGB", (SIDE, SIDE), (0, 0, 255))
    file = encoded(first, "MPO", save_all=True, append_images=[second], quality=100)
    assert Image.open(io.BytesIO(file)).format == "MPO"
    assert np.abs(DECODER.decode(file).mean(axis=(1, 2)) * 255 - (200, 30, 60)).max() < 3
