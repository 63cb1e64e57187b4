from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layout import Layout, nchw, nchwc, packed_weights, padded_outputs, space_to_depth
from tests.service.engine.runtimes.compiled.kernels import positions

LAYOUTS = [
    pytest.param(nchwc(24, 5, 7, 1, 8), id="a border"),
    pytest.param(nchwc(24, 5, 7, 0, 8), id="no border"),
    pytest.param(nchwc(16, 32, 32, 1, 4), id="large blocks"),
    pytest.param(nchwc(16, 1, 1, 0, 16), id="a single pixel"),
    pytest.param(nchw(3, 6, 3), id="an image"),
    pytest.param(nchwc(32, 5, 7, 1, 16, ElementType.BFLOAT16), id="bfloat16"),
    pytest.param(nchwc(32, 5, 7, 0, 16, ElementType.UINT8), id="8 bits"),
    pytest.param(space_to_depth(3, 12, 2), id="half an image"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_number_has_a_place_of_its_own(layout: Layout) -> None:
    found, in_a_word = positions(layout), layout.element_type.value
    assert found.shape == (layout.channels, layout.height, layout.width)
    assert len(np.unique(found)) == found.size
    assert found.min() == layout.start() * in_a_word
    assert found.max() < layout.size * in_a_word


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_a_pixel_up_or_left_is_a_stride_before(layout: Layout) -> None:
    found, in_a_word = positions(layout), layout.element_type.value
    assert (found[:, 1:] - found[:, :-1] == layout.row * in_a_word).all()
    assert (found[:, :, 1:] - found[:, :, :-1] == layout.pixel * in_a_word).all()
    assert layout.start(layout.padding) == 0
    assert layout.start() - layout.start(1) == layout.row + layout.pixel


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_end_with_the_last_pixel_of_the_border(layout: Layout) -> None:
    height, width = layout.height + 2 * layout.padding, layout.width + 2 * layout.padding
    whole = replace(layout, height=height, width=width, padding=0)
    assert positions(whole).max() == layout.size * layout.element_type.value - 1


def test_channels_of_a_block_lie_side_by_side() -> None:
    found = positions(nchwc(24, 5, 7, 1, 8))
    assert (found[1:8] - found[:7] == 1).all()
    assert nchwc(24, 5, 7, 1, 8).blocks == 3


def test_image_lies_as_it_comes() -> None:
    layout = nchw(3, 6, 0)
    assert (layout.size, layout.blocks) == (3 * 6 * 6, 1)
    np.testing.assert_array_equal(positions(layout).ravel(), np.arange(3 * 6 * 6))


@pytest.mark.parametrize("element_type", [ElementType.BFLOAT16, ElementType.UINT8])
def test_numbers_of_fewer_bits_lie_closer_together(element_type: ElementType) -> None:
    whole, packed = nchwc(32, 5, 7, 1, 16), nchwc(32, 5, 7, 1, 16, element_type)
    assert whole.words == whole.pixel == 16
    assert packed.words == packed.pixel == 16 // element_type.value
    assert packed.row * element_type.value == whole.row
    assert (np.diff(positions(packed)[:16], axis=0) == 1).all()


def test_row_of_an_image_lies_in_its_half_as_it_comes() -> None:
    layout = space_to_depth(3, 12, 1)
    assert (layout.channels, layout.height, layout.width, layout.words) == (12, 6, 6, 6)
    # (colour, down, right, row, column) to (colour, row, down, column, right): the original's rows and columns
    found = positions(layout).reshape(3, 2, 2, 6, 6).transpose(0, 3, 1, 4, 2).reshape(3, 12, 12)
    assert (np.diff(found, axis=2) == 1).all()


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_large_blocks_do_not_drive_each_other_out_of_the_cache(lanes: int) -> None:
    for side, padding in product(range(1, 120), (0, 1)):
        layout = nchwc(4 * lanes, side, side, padding, lanes)
        needed = (side + 2 * padding) ** 2 * lanes
        if needed < 1024:  # all blocks have a place at once
            assert layout.block == needed
        else:
            assert needed <= layout.block < needed + 1024
            assert layout.block % 1024 == 64
        assert layout.size == 3 * layout.block + needed


def test_blocks_are_moved_apart_by_the_ways_of_the_cache_at_hand() -> None:
    narrow, wide = (nchwc(64, 32, 32, 0, 16, way=way) for way in (4096, 16 * 1024))
    assert (narrow.block, wide.block) == (32 * 32 * 16 + 64, 32 * 32 * 16 + 64)
    narrow, wide = (nchwc(64, 10, 10, 0, 16, way=way) for way in (4096, 16 * 1024))
    assert (narrow.block, wide.block) == (2048 + 64, 1600)


def test_features_without_a_border_are_one_row() -> None:
    layout = nchwc(16, 5, 7, 0, 8)
    row = layout.as_one_row()
    assert (row.height, row.width) == (1, 35)
    np.testing.assert_array_equal(positions(row).reshape(16, 5, 7), positions(layout))


@pytest.mark.parametrize(("lanes", "group"), [(4, 8), (8, 8), (2, 16), (3, 4), (24, 4)])
def test_weights_are_packed_in_the_order_they_are_read(rng: np.random.Generator, lanes: int, group: int) -> None:
    outputs, inputs, height, width = 2 * group, 24, 3, 2
    weights = rng.standard_normal((outputs, inputs, height, width)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    packed = packed_weights(weights, [bias], lanes, group)
    assert packed.dtype == np.float32
    assert packed.shape == (outputs * (1 + inputs * height * width),)
    begin = group * (1 + inputs * height * width)
    for output in range(outputs):
        of_group, within = divmod(output, group)
        assert packed[of_group * begin + within] == bias[output]
        for (channel, down, right), weight in np.ndenumerate(weights[output]):
            block, lane = divmod(channel, lanes)
            before = ((block * height + down) * width + right) * lanes + lane
            assert packed[of_group * begin + group * (1 + before) + within] == weight


@pytest.mark.parametrize("kind", [np.uint16, np.int8])
def test_weights_for_one_word_of_the_input_lie_side_by_side(rng: np.random.Generator, kind: type[np.generic]) -> None:
    group, lanes, packed = 32, 16, 4 // np.dtype(kind).itemsize
    weights = rng.integers(-100, 100, (2 * group, 2 * lanes, 3, 2)).astype(kind)
    constants = [rng.standard_normal(2 * group).astype(np.float32) for _ in range(2)]
    words = packed_weights(weights, constants, lanes, group)
    assert words.shape == (2 * group * (2 + 2 * lanes * 6 // packed),)
    for number, half in enumerate(np.split(words, 2)):
        outputs = slice(number * group, (number + 1) * group)
        for place, constant in enumerate(constants):
            np.testing.assert_array_equal(half[place * group : (place + 1) * group], constant[outputs])
        there = half[2 * group :].view(kind).reshape(2, 3, 2, lanes // packed, group, packed)
        # (block, row, column, word, output, in the word) to (output, block, word, in the word, row, column)
        back = there.transpose(4, 0, 3, 5, 1, 2).reshape(group, 2 * lanes, 3, 2)
        np.testing.assert_array_equal(back, weights[outputs])


def test_words_of_weights_that_look_like_no_number_are_kept() -> None:
    weights = np.full((16, 16, 1, 1), -1, np.int8)  # all bits are set: in float32 that is none
    words = packed_weights(weights, [np.zeros(16)], 16, 16)
    assert words.dtype == np.float32
    assert (words[16:].view(np.int8) == -1).all()


@pytest.mark.parametrize(("multiple", "total"), [(1, 5), (5, 5), (4, 8), (16, 16)])
def test_missing_outputs_are_filled_with_zeros(rng: np.random.Generator, multiple: int, total: int) -> None:
    weight, bias = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    more, more_bias = padded_outputs(weight, bias, multiple)
    assert (more.shape, more_bias.shape) == ((total, 3), (total,))
    assert more.dtype == more_bias.dtype == np.float32
    np.testing.assert_array_equal(more[:5], weight)
    np.testing.assert_array_equal(more_bias[:5], bias)
    assert not more[5:].any()
    assert not more_bias[5:].any()
