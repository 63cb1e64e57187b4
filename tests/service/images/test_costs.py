from __future__ import annotations

import pytest
from PIL import Image

from service.images.costs import DecodingCosts
from tests.image_files import encoded, hollow_png, photograph, solid


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_small_image_is_not_dear_and_a_huge_one_is(kind: str) -> None:
    costs = DecodingCosts(1.0)
    assert not costs.is_dear(costs.kind(encoded(photograph(64, 48), kind)))
    huge = costs.kind(encoded(Image.new("L", (6000, 4000)), kind))
    assert huge.pixels == (6000 * 4000).bit_length()
    assert costs.is_dear(huge)


def test_file_of_few_pixels_and_many_bytes_is_dear() -> None:
    costs = DecodingCosts(1.0)
    assert costs.is_dear(costs.kind(solid(10) + bytes(10_000_000)))


def test_what_is_no_image_is_of_one_kind_for_each_size() -> None:
    costs = DecodingCosts(1.0)
    kinds = {costs.kind(bytes([first, second]) + b"nonsense") for first in range(0, 256, 7) for second in range(256)}
    assert len(kinds) < 10


def test_experience_counts_more_than_the_first_guess() -> None:
    costs = DecodingCosts(1.0)
    kind = costs.kind(encoded(Image.new("L", (6000, 4000)), "JPEG"))
    costs.note(kind, 0.01)
    assert not costs.is_dear(kind)
    for _ in range(20):
        costs.note(kind, 1.0)
    assert costs.is_dear(kind)
    costs.note(kind, 0.01)
    assert not costs.is_dear(kind)  # cheap ones must not wait behind others


def test_one_image_does_not_make_its_kind_dear() -> None:
    costs = DecodingCosts(1.0)
    kind = costs.kind(solid(10))
    costs.note(kind, 0.001)
    costs.note(kind, 0.4)
    assert not costs.is_dear(kind)


def test_no_image_is_likely_to_take_longer_than_it_may() -> None:
    costs = DecodingCosts(1.0)
    absurd = hollow_png(2**31 - 1, 2**31 - 1)
    assert costs.seconds(costs.kind(absurd)) == 1.0
    assert costs.images(costs.kind(absurd)) == 20


@pytest.mark.parametrize(
    "data", [b"P5 " + b"9" * 400 + b" " + b"9" * 400 + b" 255\n", b'<svg width="' + b"1" * 300 + b'" height="1"/>']
)
def test_size_of_a_file_that_is_no_image_is_not_asked_for(data: bytes) -> None:
    costs = DecodingCosts(1.0)
    assert costs.kind(data).pixels == 0
    assert not costs.is_dear(costs.kind(data))


def test_many_parts_before_the_size_are_not_looked_through() -> None:
    costs = DecodingCosts(1.0)
    assert costs.kind(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000).pixels == 0


def test_dear_image_counts_as_several() -> None:
    costs = DecodingCosts(1.0)
    kind = costs.kind(solid(10))
    assert costs.images(kind) == 1
    costs.note(kind, 0.49)
    assert costs.images(kind) == 10
