from __future__ import annotations

from pathlib import Path

import pytest

from service.engine.runtimes.data_caches import Caches, host_caches

L1 = {"level": "1", "type": "Data", "size": "48K", "ways_of_associativity": "12"}
INSTRUCTIONS = {"level": "1", "type": "Instruction", "size": "64K", "ways_of_associativity": "4"}
L2 = {"level": "2", "type": "Unified", "size": "1M", "ways_of_associativity": "16"}
L3 = {"level": "3", "type": "Unified", "size": "32768K", "ways_of_associativity": "16"}


def _caches(system: Path, *told: dict[str, str]) -> Caches:
    for number, files in enumerate(told):
        (system / f"index{number}").mkdir()
        for name, content in files.items():
            (system / f"index{number}" / name).write_text(f"{content}\n")
    return host_caches(system)


def test_data_caches_of_the_first_two_levels_are_read(tmp_path: Path) -> None:
    assert _caches(tmp_path, L1, INSTRUCTIONS, L2, L3) == Caches(l1=48 * 1024, l1_way=4096, l2=1024**2)


def test_way_is_the_size_by_the_number_of_ways(tmp_path: Path) -> None:
    told = L1 | {"size": "64K", "ways_of_associativity": "4"}
    assert _caches(tmp_path, told, L2) == Caches(l1=64 * 1024, l1_way=16 * 1024, l2=1024**2)


def test_system_that_tells_nothing_is_taken_to_have_small_caches(tmp_path: Path) -> None:
    assert host_caches(tmp_path / "nowhere") == Caches(l1=32 * 1024, l1_way=4096, l2=512 * 1024)
    assert _caches(tmp_path) == Caches()


@pytest.mark.parametrize(
    "nonsense",
    [
        {"size": "0K"},
        {"size": ""},
        {"size": "many"},
        {"size": "48"},
        {"ways_of_associativity": "0"},
        {"ways_of_associativity": "-1"},
        {"type": "Instruction"},
        {"level": "first"},
    ],
    ids=str,
)
def test_nonsense_about_one_level_is_left_out(tmp_path: Path, nonsense: dict[str, str]) -> None:
    assert _caches(tmp_path, L1 | nonsense, L2) == Caches(l2=1024**2)


def test_second_level_is_no_smaller_than_the_first(tmp_path: Path) -> None:
    assert _caches(tmp_path, L1, L2 | {"size": "16K"}).l2 == 512 * 1024
