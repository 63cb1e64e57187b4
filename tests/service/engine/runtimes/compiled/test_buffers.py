from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from service.engine.runtimes.compiled.buffers import Arena, Buffer, BufferPlan
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layout import Layout, nchw, nchwc

LAYOUT = nchwc(32, 5, 7, 1, 16)


@pytest.fixture
def arena() -> Arena:
    return Arena()


@pytest.fixture
def plan(arena: Arena) -> BufferPlan:
    return BufferPlan(arena)


def _regions(*buffers: Buffer) -> list[tuple[int, int]]:
    """First word and the one after the last, of features and of sums, in order."""
    found = []
    for buffer in buffers:
        layout = buffer.layout
        found += [(buffer.offset, buffer.offset + layout.size), (buffer.sums, buffer.sums + layout.channels)]
    return sorted(found)


def _assert_disjoint(arena: Arena, *buffers: Buffer) -> None:
    regions = _regions(*buffers)
    assert all(begin % 16 == 0 for begin, _ in regions)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(regions))
    assert regions[-1][1] <= arena.size


def test_regions_begin_at_cache_lines_and_share_none(arena: Arena, plan: BufferPlan) -> None:
    layouts = [nchw(3, 5, 2), nchwc(24, 5, 7, 1, 8), nchwc(8, 1, 1, 0, 8), nchwc(16, 32, 32, 1, 8)]
    _assert_disjoint(arena, *map(plan.allocate, layouts), *map(plan.allocate, layouts))


def test_features_of_one_use_and_layout_share_a_buffer(arena: Arena, plan: BufferPlan) -> None:
    first = plan.shared("inner", LAYOUT)
    size = arena.size
    assert plan.shared("inner", nchwc(32, 5, 7, 1, 16)) == first
    assert arena.size == size


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(nchwc(32, 5, 7, 1, 16, ElementType.BFLOAT16), id="number format"),
        pytest.param(nchwc(32, 5, 7, 1, 16, ElementType.UINT8), id="smaller number format"),
        pytest.param(nchwc(32, 5, 7, 1, 8), id="channels in a block"),
        pytest.param(nchwc(16, 5, 7, 1, 16), id="channels"),
        pytest.param(nchwc(32, 7, 5, 1, 16), id="height and width"),
        pytest.param(nchwc(32, 5, 7, 0, 16), id="border"),
    ],
)
def test_features_of_another_layout_share_no_memory(arena: Arena, plan: BufferPlan, other: Layout) -> None:
    first, second = plan.shared("inner", LAYOUT), plan.shared("inner", other)
    assert (first.layout, second.layout) == (LAYOUT, other)
    _assert_disjoint(arena, first, second)


def test_features_of_another_use_share_no_memory(arena: Arena, plan: BufferPlan) -> None:
    _assert_disjoint(arena, plan.shared("inner", LAYOUT), plan.shared("features", LAYOUT), plan.allocate(LAYOUT))


def test_sums_are_a_single_pixel_of_all_channels(plan: BufferPlan) -> None:
    buffer = replace(plan.allocate(nchwc(24, 5, 5, 1, 8)), unit=0.5)
    assert buffer.pooled() == Buffer(nchwc(24, 1, 1, 0, 8), buffer.sums)
