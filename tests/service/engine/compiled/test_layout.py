from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from service.engine.compiled.layout import Layout, blocked, packed_weights, padded_outputs, planar
from tests.service.engine.compiled.kernels import positions

LAYOUTS = [
    pytest.param(blocked(24, 5, 7, 1, 8), id="a border"),
    pytest.param(blocked(24, 5, 7, 0, 8), id="no border"),
    pytest.param(blocked(16, 32, 32, 1, 4), id="large blocks"),
    pytest.param(blocked(16, 1, 1, 0, 16), id="a single pixel"),
    pytest.param(planar(3, 6, 3), id="an image"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_number_has_a_place_of_its_own(layout: Layout) -> None:
    found = positions(layout)
    assert found.shape == (layout.channels, layout.height, layout.width)
    assert len(np.unique(found)) == found.size
    assert found.min() == layout.start()
    assert found.max() < layout.size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_a_pixel_up_or_left_is_a_stride_before(layout: Layout) -> None:
    found = positions(layout)
    assert (found[:, 1:] - found[:, :-1] == layout.row).all()
    assert (found[:, :, 1:] - found[:, :, :-1] == layout.pixel).all()
    assert layout.start(layout.padding) == 0
    assert layout.start() - layout.start(1) == layout.row + layout.pixel


def test_channels_of_a_block_lie_side_by_side() -> None:
    found = positions(blocked(24, 5, 7, 1, 8))
    assert (found[1:8] - found[:7] == 1).all()
    assert blocked(24, 5, 7, 1, 8).blocks == 3


def test_image_lies_as_it_comes() -> None:
    layout = planar(3, 6, 0)
    assert (layout.size, layout.blocks) == (3 * 6 * 6, 1)
    np.testing.assert_array_equal(positions(layout).ravel(), np.arange(3 * 6 * 6))


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_large_blocks_do_not_drive_each_other_out_of_the_cache(lanes: int) -> None:
    for side, padding in product(range(1, 120), (0, 1)):
        layout = blocked(4 * lanes, side, side, padding, lanes)
        needed = (side + 2 * padding) ** 2 * lanes
        if needed < 1024:  # all blocks have a place at once
            assert layout.block == needed
        else:
            assert needed <= layout.block < needed + 1024
            assert layout.block % 1024 == 64
        assert layout.size == 4 * layout.block


def test_features_without_a_border_are_one_row() -> None:
    layout = blocked(16, 5, 7, 0, 8)
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
