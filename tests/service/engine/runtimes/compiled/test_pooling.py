from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.layout import nchwc
from service.engine.runtimes.compiled.pooling import MaxPool
from tests.service.engine.runtimes.compiled.kernels import run_max_pool, whole_numbers


def _pool(
    side: int, kernel: int = 3, stride: int = 2, padding: int = 1, border: int = 1, lanes: int = 8, blocks: int = 2
) -> MaxPool:
    over = (side + 2 * padding - kernel) // stride + 1
    source = nchwc(blocks * lanes, side, side, padding, lanes)
    return MaxPool(kernel, stride, padding, source, nchwc(blocks * lanes, over, over, border, lanes))


def _pooled(pool: MaxPool, source: Float32Array) -> Float32Array:
    padded = np.pad(source, ((0, 0), (pool.padding,) * 2, (pool.padding,) * 2))
    windows = sliding_window_view(padded, (pool.kernel, pool.kernel), axis=(1, 2))
    found: Float32Array = windows[:, :: pool.stride, :: pool.stride].max(axis=(3, 4))
    return found


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(_pool(8), id="even"),
        pytest.param(_pool(7), id="odd"),
        pytest.param(_pool(1), id="a single pixel"),
        pytest.param(_pool(6, kernel=2, padding=0), id="without padding"),
        pytest.param(_pool(6, stride=1), id="every pixel"),
        pytest.param(_pool(6, border=0), id="no border around the output"),
        pytest.param(_pool(5, lanes=4, blocks=3), id="narrow vectors"),
        pytest.param(_pool(5, lanes=16, blocks=1), id="wide vectors"),
    ],
)
def test_pooling_gives_what_numpy_gives(rng: np.random.Generator, pool: MaxPool) -> None:
    source = pool.source
    features = whole_numbers(rng, source.channels, source.height, source.width, least=0)
    features *= features > 1  # so that some windows are all zero
    output, sums = run_max_pool(pool, features)
    expected = _pooled(pool, features)
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(sums, expected.sum(axis=(1, 2)))


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_what_is_no_number_is_not_hidden_by_its_neighbours(rng: np.random.Generator, lanes: int) -> None:
    pool = _pool(7, lanes=lanes)
    features = whole_numbers(rng, 2 * lanes, 7, 7, least=0)
    for channel in range(9):  # at each place of a window
        features[channel % (2 * lanes), 1 + channel // 3, 1 + channel % 3] = np.nan
    output, sums = run_max_pool(pool, features)
    expected = _pooled(pool, features)
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(sums, expected.sum(axis=(1, 2)))
    assert 0 < np.isnan(output).sum() < output.size / 2
