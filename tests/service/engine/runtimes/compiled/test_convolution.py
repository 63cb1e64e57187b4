from __future__ import annotations

import pytest

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.layout import nchw, nchwc
from service.engine.runtimes.data_caches import Caches

SMALL, LARGE = Caches(l1=32 * 1024, l2=512 * 1024), Caches(l1=48 * 1024, l2=1024**2)


def _convolution(inputs: int, outputs: int, side: int, kernel: int = 1, stride: int = 1, lanes: int = 8) -> Convolution:
    padding = kernel // 2
    over = (side + 2 * padding - kernel) // stride + 1
    source, target = nchwc(inputs, side, side, padding, lanes), nchwc(outputs, over, over, 0, lanes)
    return Convolution(kernel, stride, padding, source, target)


@pytest.mark.parametrize(("blocks", "vectors_per_tile"), [(1, 1), (2, 2), (3, 1), (4, 2), (7, 1)])
def test_two_vectors_of_outputs_are_computed_together_where_they_can_be_paired(
    blocks: int, vectors_per_tile: int
) -> None:
    convolution = _convolution(8, 8 * blocks, side=2)
    assert convolution.vectors_per_tile() == vectors_per_tile
    assert convolution.channels_per_tile == 8 * vectors_per_tile


@pytest.mark.parametrize(
    ("blocks", "vectors_per_tile"), [(1, 1), (2, 2), (7, 7), (8, 8), (9, 3), (11, 1), (12, 6), (16, 8), (20, 5)]
)
def test_more_are_computed_together_for_a_single_pixel(blocks: int, vectors_per_tile: int) -> None:
    assert _convolution(8, 8 * blocks, side=1).vectors_per_tile() == vectors_per_tile


def test_column_of_pixels_has_pixels_to_share_a_load_of_weights() -> None:
    column = nchwc(64, 4, 1, 0, 8)
    assert Convolution(1, 1, 0, column, column).vectors_per_tile() == 2


@pytest.mark.parametrize(("kernel", "inputs", "taps"), [(1, 8, 8), (3, 16, 144), (7, 8, 392)])
def test_taps_are_the_weights_of_one_output(kernel: int, inputs: int, taps: int) -> None:
    assert _convolution(inputs, 8, 9, kernel).taps == taps


def test_taps_of_an_image_are_those_of_its_three_colours() -> None:
    assert Convolution(7, 2, 3, nchw(3, 32, 3), nchwc(16, 16, 16, 1, 8)).taps == 7 * 7 * 3


@pytest.mark.parametrize(
    ("convolution", "rows"),
    [
        pytest.param(_convolution(8, 8, side=54), 54, id="input that stays in the cache"),
        pytest.param(_convolution(8, 8, side=56), 28, id="half of the rows stay there"),
        pytest.param(_convolution(16, 16, side=96), 16, id="a divisor of the rows, not all that would stay"),
        pytest.param(_convolution(8, 8, side=97), 1, id="a prime number of rows"),
        pytest.param(_convolution(64, 64, side=385), 1, id="not even one stays"),
        pytest.param(_convolution(8, 8, side=56, stride=2), 14, id="every second row is read over"),
        pytest.param(_convolution(256, 192, side=60), 1, id="weights that just stay"),
        pytest.param(_convolution(256, 200, side=60), 60, id="weights that do not stay"),
    ],
)
def test_rows_are_done_in_chunks_where_that_keeps_more_in_the_cache(convolution: Convolution, rows: int) -> None:
    assert convolution.row_block(SMALL) == rows


def test_larger_second_level_cache_holds_more_rows_and_weights() -> None:
    assert _convolution(8, 8, side=56).row_block(LARGE) == 56
    assert _convolution(16, 16, side=96).row_block(LARGE) == 32
    # Weights of more than the smaller cache holds are worth going through for every few rows of the input.
    assert _convolution(256, 200, side=60).row_block(LARGE) == 3


def test_larger_first_level_cache_holds_larger_parts_of_the_weights() -> None:
    convolution = _convolution(18 * 8, 16, 9, kernel=3)
    assert convolution.reduction_block(SMALL) == 3
    assert convolution.reduction_block(LARGE) == 18
    assert _convolution(24 * 8, 16, 9, kernel=3).reduction_block(LARGE) == 8


@pytest.mark.parametrize(
    ("inputs", "kernel", "lanes", "blocks"),
    [
        pytest.param(14 * 8, 3, 8, 14, id="weights of 14 blocks are read at once"),
        pytest.param(15 * 8, 3, 8, 5, id="those of 15 are too many"),
        pytest.param(16 * 8, 3, 8, 4, id="a divisor of the blocks, not all that would stay"),
        pytest.param(17 * 8, 3, 8, 1, id="a prime number of blocks"),
        pytest.param(2 * 16, 7, 16, 1, id="not even those of one stay"),
        pytest.param(128 * 8, 1, 8, 128, id="as many as may be at once"),
        pytest.param(129 * 8, 1, 8, 43, id="one more than that"),
        pytest.param(144 * 8, 1, 8, 48, id="parts as large as may be"),
    ],
)
def test_weights_are_read_in_parts_where_they_are_many(inputs: int, kernel: int, lanes: int, blocks: int) -> None:
    assert _convolution(inputs, 2 * lanes, 9, kernel, lanes=lanes).reduction_block(SMALL) == blocks


@pytest.mark.parametrize(
    ("outputs", "registers", "width", "tiles"),
    [
        pytest.param(16, 16, 6, [(1, 6)], id="a single tile"),
        pytest.param(16, 16, 1, [(1, 1)], id="a single pixel"),
        pytest.param(16, 16, 12, [(2, 6)], id="tiles of one width"),
        pytest.param(16, 16, 7, [(1, 4), (1, 3)], id="one wider than the other"),
        pytest.param(16, 16, 56, [(6, 6), (4, 5)], id="wider ones first"),
        pytest.param(16, 32, 12, [(1, 12)], id="more registers"),
        pytest.param(8, 16, 12, [(1, 12)], id="fewer vectors of outputs"),
    ],
)
def test_row_is_cut_into_few_tiles_of_nearly_one_width(
    outputs: int, registers: int, width: int, tiles: list[tuple[int, int]]
) -> None:
    assert _convolution(8, outputs, 20).tiles(width, registers) == tiles


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("outputs", [8, 16])
def test_tiles_fill_the_row_and_their_sums_fit_the_registers(outputs: int, registers: int) -> None:
    convolution = _convolution(8, outputs, 20)
    for width in range(1, 300):
        tiles = convolution.tiles(width, registers)
        assert sum(count * pixels for count, pixels in tiles) == width
        for count, pixels in tiles:
            assert count > 0
            # Beside the sums there are the weights, and the input of one pixel.
            assert pixels * convolution.vectors_per_tile() + convolution.vectors_per_tile() + 1 <= registers


def test_single_pixel_is_one_tile_however_many_registers_its_outputs_take() -> None:
    assert _convolution(8, 64, side=1).tiles(1, registers=16) == [(1, 1)]
