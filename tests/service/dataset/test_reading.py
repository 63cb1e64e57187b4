from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from threading import Event

import pytest

from service.dataset.items import Dataset, Item
from service.dataset.output import Finished, Part
from service.dataset.reading import PartEnd, Piece, pieces, read_ahead


@dataclass
class Numbers:
    """A source of so many images, which are their numbers."""

    size: int
    name: str = "numbers"
    image_bytes: int = 0
    read: int = 0

    def items(self, start: int) -> Iterator[Item]:
        for number in range(start, self.size):
            self.read += 1
            yield Item(str(number), bytes(self.image_bytes), number + 1)


def told(sizes: list[int], finished: dict[int, Finished], part_rows: int = 2) -> list[tuple[int, int, list[str], bool]]:
    """Source, chunk, names and whether it is the last, of all parts that are still to be made."""
    sources = [Numbers(size) for size in sizes]
    parts, names = [], []
    for piece in pieces(Dataset("tar", "", sources, None), finished, part_rows):
        if isinstance(piece, PartEnd):
            assert piece.rows == len(names)
            parts.append((piece.part.source, piece.part.chunk, names, piece.last))
            names = []
        else:
            assert piece.row == len(names)
            names.append(piece.item.name)
    return parts


def test_source_is_cut_into_parts_of_which_the_last_is_known() -> None:
    assert told([3, 2, 0], {}) == [
        (0, 0, ["0", "1"], False),
        (0, 1, ["2"], True),
        (1, 0, ["0", "1"], True),
        (2, 0, [], True),
    ]


def test_finished_parts_are_left_out_wherever_they_are() -> None:
    whole = told([7], {})
    for gaps in ({0}, {1}, {3}, {0, 2}, {1, 3}, {1, 2}, {0, 1, 2}, {0, 1, 2, 3}, set()):
        there = Finished({0, 1, 2, 3} - gaps, None if 3 in gaps else 3)
        assert [part[1] for part in told([7], {0: there})] == sorted(gaps)
        assert told([7], {0: there}) == [part for part in whole if part[1] in gaps]


def test_finished_source_is_not_read_at_all() -> None:
    source = Numbers(4)
    assert list(pieces(Dataset("tar", "", [source], None), {0: Finished({0, 1}, 1)}, 2)) == []
    assert source.read == 0


@pytest.mark.parametrize("image_bytes", [10, 1_000_000, 20_000_000])
def test_only_a_batch_is_read_ahead(image_bytes: int) -> None:
    source = Numbers(300, image_bytes=image_bytes)
    taken: list[Piece | PartEnd] = []

    async def take() -> None:
        async for batch in read_ahead(pieces(Dataset("tar", "", [source], None), {}, 1000)):
            taken.extend(batch)
            # This batch, and the next one, of which some may not be read yet; and a look at what follows.
            ahead = source.read - len(taken)
            assert ahead <= 65
            assert len(batch) <= 64
            assert (ahead - 2) * image_bytes <= 8_000_000

    asyncio.run(take())
    assert [piece.item.name for piece in taken if isinstance(piece, Piece)] == [str(number) for number in range(300)]
    assert taken[-1] == PartEnd(Part(0, 0), 300, last=True)


def test_fault_of_a_source_reaches_who_reads() -> None:
    def broken() -> Iterator[Piece]:
        yield Piece(Part(0, 0), 0, Item("a", b"", 1))
        raise RuntimeError("broken")

    async def take() -> None:
        async for _ in read_ahead(broken()):
            pass

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(take())


@pytest.mark.timeout(60)
def test_end_does_not_wait_for_a_source_that_gives_nothing_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.dataset.reading._PATIENCE_S", 0.01)
    begun, let_go = Event(), Event()

    def slow() -> Iterator[Piece]:
        begun.set()
        let_go.wait()
        yield Piece(Part(0, 0), 0, Item("a", b"", 1))

    async def take() -> None:
        async with aclosing(read_ahead(slow())) as batches:
            async for _ in batches:
                pass

    async def run() -> None:
        taking = asyncio.ensure_future(take())
        await asyncio.to_thread(begun.wait)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert not let_go.is_set()
        let_go.set()

    asyncio.run(run())
