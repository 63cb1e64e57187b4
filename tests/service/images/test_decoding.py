from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.preprocessing import Preprocessing
from models.config import ModelConfig, preset
from models.data import Dataset, load_pixels
from models.sources import open_examples
from service.images.decoding import (
    CorruptImage,
    EmptyImage,
    ImageDecoder,
    ImageTooLarge,
    NotAnImage,
    TooManyPixels,
    UnsupportedImage,
)
from tests.image_files import encoded, hollow_png, photograph
from tests.service.decoding import DECODER, PLAIN, SIDE, seen_pixels


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("sizes", [[(32, 32)], [(31, 47), (33, 32), (500, 300), (32, 400), (20, 20)]], ids=str)
@pytest.mark.parametrize("name", ["convnet-aig-20-cifar10", "convnet-aig-18-imagenet"])
def test_serving_sees_an_image_as_training_does_to_the_last_bit(
    tmp_path: Path, name: str, sizes: list[tuple[int, int]], suffix: str
) -> None:
    config: ModelConfig = preset(name)
    (tmp_path / "class").mkdir()
    for number, size in enumerate(sizes):
        photograph(*size, seed=number).save(tmp_path / "class" / f"{number}.{suffix}")
    examples = open_examples(tmp_path)
    examples, pixels = load_pixels(examples, config.preprocessing)
    dataset = Dataset(examples, np.arange(len(examples)), config.preprocessing, pixels)
    trained = np.concatenate([batch.images.numpy() for batch in dataset.ordered(2)])
    decoder = ImageDecoder(config.preprocessing, max_bytes=10**7, max_pixels=10**7)
    files = [tmp_path / "class" / f"{number}.{suffix}" for number in range(len(sizes))]
    served = np.stack([decoder.decode(file.read_bytes()) for file in files])
    assert served.dtype == trained.dtype == np.float32
    assert served.tobytes() == np.ascontiguousarray(trained).tobytes()


def test_photograph_with_damaged_metadata_is_read_all_the_same() -> None:
    plain = encoded(photograph(40, 40), "JPEG")
    damaged = encoded(photograph(40, 40), "JPEG", exif=b"Exif\x00\x00" + b"\xff" * 40)
    assert np.array_equal(seen_pixels(damaged), seen_pixels(plain))


def test_lack_of_memory_is_not_blamed_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Preprocessing, "fit", fail)
    with pytest.raises(MemoryError):
        DECODER.decode(encoded(photograph(8, 8)))


def test_limits_are_the_decoders_own() -> None:
    decoder = ImageDecoder(PLAIN, max_bytes=3000, max_pixels=1000)
    assert decoder.decode(encoded(Image.new("RGB", (10, 100)))).shape == (3, SIDE, SIDE)
    with pytest.raises(TooManyPixels, match=r"1000 pixels; it has 10 x 101"):
        decoder.decode(encoded(Image.new("RGB", (10, 101))))
    with pytest.raises(TooManyPixels, match="far more"):
        decoder.decode(hollow_png(50_000, 50_000))
    with pytest.raises(ImageTooLarge, match="3000 bytes"):
        decoder.decode(bytes(3001))
    with pytest.raises(EmptyImage):
        decoder.decode(b"")


def test_long_thin_image_costs_little() -> None:
    # Resized as a whole it would be 256 x 10,240,000 pixels.
    decoder = ImageDecoder(preset("convnet-aig-18-imagenet").preprocessing, max_bytes=100_000, max_pixels=50_000)
    thin = decoder.decode(encoded(Image.new("RGB", (1, 40_000), (9, 8, 7))))
    square = decoder.decode(encoded(Image.new("RGB", (8, 8), (9, 8, 7))))
    assert np.array_equal(thin, square)


def test_garbage_is_never_anything_but_an_image_error() -> None:
    random = np.random.default_rng(0)
    sound = [encoded(photograph(12, 9), format_) for format_ in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    refused = 0
    for turn in range(700):
        data = bytearray(sound[turn % len(sound)])
        for position in random.integers(0, len(data), random.integers(1, 8)):
            data[position] = random.integers(0, 256)
        try:
            assert DECODER.decode(bytes(data[: random.integers(1, len(data) + 1)])).shape == (3, SIDE, SIDE)
        except (CorruptImage, NotAnImage, TooManyPixels, UnsupportedImage):
            refused += 1
    assert refused > 100


def test_decoder_may_be_used_from_several_threads() -> None:
    files = [encoded(photograph(40, 30, seed), "JPEG") for seed in range(8)]
    expected = [DECODER.decode(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(np.array_equal, pool.map(DECODER.decode, files), expected))


def test_format_that_is_not_asked_for_is_not_read() -> None:
    decoder = ImageDecoder(PLAIN, max_bytes=10**6, max_pixels=10**6, formats=("PNG", "WEBP"))
    assert decoder.decode(encoded(photograph(8, 8), "WEBP")).shape == (3, SIDE, SIDE)
    with pytest.raises(UnsupportedImage, match="this is a JPEG, which is not read"):
        decoder.decode(encoded(photograph(8, 8), "JPEG"))
    with pytest.raises(NotAnImage, match=r"none of these formats: PNG, WEBP"):
        decoder.decode(b"words" * 20)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF"])
def test_limits_hold_for_every_format_before_it_is_decoded(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photograph(64, 64), format_)

    def fail(*_: object) -> None:
        raise AssertionError("the pixels were asked for")

    monkeypatch.setattr(Preprocessing, "fit", fail)
    with pytest.raises(TooManyPixels, match="4095 pixels; it has 64 x 64"):
        ImageDecoder(PLAIN, max_bytes=10**6, max_pixels=4095).decode(data)
    with pytest.raises(ImageTooLarge):
        ImageDecoder(PLAIN, max_bytes=len(data) - 1, max_pixels=4096).decode(data)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF"])
def test_file_that_is_cut_off_is_corrupt_wherever_it_is_cut(format_: str) -> None:
    data = encoded(photograph(30, 20), format_)
    for length in (34, 60, len(data) // 2):
        with pytest.raises(CorruptImage):
            DECODER.decode(data[:length])


def test_kind_of_image_that_cannot_be_read_right_is_told() -> None:
    twelve_bits = bytearray(encoded(photograph(8, 8), "JPEG"))
    twelve_bits[twelve_bits.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(UnsupportedImage, match="this is a JPEG of 12 bits a sample, which is not read"):
        DECODER.decode(bytes(twelve_bits))
