from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.dataset.items import DatasetError, Item, Unreadable
from service.dataset.output import Part, opened_output
from service.dataset.parts import Parts
from service.dataset.reading import PartEnd, Piece
from service.dataset.rows import Columns
from service.engine.errors import NoWorker
from tests.runtimes import echo_manifest
from tests.service.dataset.datasets import rows


def piece(part: Part, row: int) -> Piece:
    return Piece(part, row, Item(str(row), b"", 1))


def test_part_is_written_when_it_has_all_its_rows_and_not_before(tmp_path: Path) -> None:
    part = Part(0, 0)

    async def run() -> None:
        with opened_output(tmp_path, {}) as output:
            parts = Parts(output, Columns(echo_manifest(), 1), ["a.tar"], 10, as_completed=False, most=2)
            await parts.begin(part)
            parts.note(piece(part, 1), Unreadable("gone"))
            parts.end(PartEnd(part, 2, last=True))
            await asyncio.sleep(0)
            assert not list(tmp_path.glob("part-*"))
            parts.note(piece(part, 0), Unreadable("gone"))
            await parts.all_written()
            assert [path.name for path in tmp_path.glob("part-*")] == [part.file_name]
            parts.close()

    asyncio.run(run())
    assert [row["name"] for row in rows(tmp_path)] == ["0", "1"]


def test_only_so_many_parts_are_begun_and_not_written(tmp_path: Path) -> None:
    async def run() -> None:
        with opened_output(tmp_path, {}) as output:
            parts = Parts(output, Columns(echo_manifest(), 1), ["a.tar"], 1, as_completed=False, most=3)
            for chunk in range(3):
                await parts.begin(Part(0, chunk))
                parts.end(PartEnd(Part(0, chunk), 1, last=False))
            waiting = asyncio.ensure_future(parts.begin(Part(0, 3)))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            assert parts.open == 3
            parts.note(piece(Part(0, 1), 0), Unreadable("gone"))
            await waiting
            assert parts.open == 3
            parts.close()

    asyncio.run(run())


def test_nobody_waits_for_parts_that_will_never_be_complete(tmp_path: Path) -> None:
    async def run() -> None:
        with opened_output(tmp_path, {}) as output:
            parts = Parts(output, Columns(echo_manifest(), 1), ["a.tar"], 1, as_completed=False, most=1)
            await parts.begin(Part(0, 0))
            waiting = asyncio.ensure_future(parts.begin(Part(0, 1)))
            await asyncio.sleep(0)
            parts.fail(NoWorker(1.0))
            with pytest.raises(NoWorker):
                await waiting
            with pytest.raises(NoWorker):
                await parts.all_written()
            parts.close()

    asyncio.run(run())


def test_part_that_cannot_be_written_ends_all(tmp_path: Path) -> None:
    async def run() -> None:
        with opened_output(tmp_path, {}) as output:
            parts = Parts(output, Columns(echo_manifest(), 1), ["a.tar"], 1, as_completed=False, most=1)
            (tmp_path / f".unfinished-{Part(0, 0).file_name}").mkdir()
            await parts.begin(Part(0, 0))
            parts.end(PartEnd(Part(0, 0), 0, last=True))
            with pytest.raises(DatasetError, match="cannot be written to"):
                await parts.begin(Part(0, 1))
            parts.close()

    asyncio.run(run())
