from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from service.dataset.window import Window
from service.engine.errors import InferenceFailed, NoWorker, WorkerLost
from service.engine.job import Answer, Outcome
from service.images.decoding import ImageTooCostly

ANSWER = Answer((1.0,), (), (True,), 1, 1, 0.0, 0.0, 0.0)


class Submitted(NamedTuple):
    image: bytes
    answered: Callable[[Outcome], None]
    dear: bool


class Engine:
    """Has images until it is told what has come of them."""

    def __init__(self) -> None:
        self.has: list[Submitted] = []
        self.most = self.most_bytes = 0

    def submit(
        self, image: bytes, _: float, answered: Callable[[Outcome], None], follows: bool, dear: bool, gate_offset: float
    ) -> None:
        assert follows
        assert gate_offset == 0.5
        self.has.append(Submitted(image, answered, dear))
        self.most = max(self.most, len(self.has))
        self.most_bytes = max(self.most_bytes, sum(len(each.image) for each in self.has))

    def answer(self, outcome: Outcome = ANSWER, which: int = 0) -> Submitted:
        submitted = self.has.pop(which)
        submitted.answered(outcome)
        return submitted


def window(engine: Any, images: int = 8, image_bytes: int = 10_000) -> Window:
    return Window(engine, 0.5, images, image_bytes, longest_s=1.0)


@pytest.mark.parametrize(("image_bytes", "most"), [(10, 8), (3000, 3), (9000, 1), (50_000, 1)])
def test_engine_never_has_more_than_fits_in(image_bytes: int, most: int) -> None:
    engine, outcomes = Engine(), list[Outcome]()

    async def run() -> None:
        held = window(engine)

        async def give() -> None:
            for _ in range(100):
                await held.run(bytes(image_bytes), outcomes.append)
            await held.empty()

        giving = asyncio.ensure_future(give())
        while not giving.done():
            await asyncio.sleep(0)
            if engine.has:
                engine.answer(which=len(outcomes) % len(engine.has))
        await giving

    asyncio.run(run())
    assert len(outcomes) == 100
    assert engine.most == most
    assert engine.most_bytes <= max(10_000, image_bytes)


def one(*steps: Outcome) -> tuple[list[bool], list[Outcome]]:
    """Whether an image ran as a dear one each time, and what came of it, where each of these came first."""
    engine, outcomes = Engine(), list[Outcome]()

    async def run() -> None:
        held = window(engine)
        await held.run(b"image", outcomes.append)
        given = [engine.answer(step).dear for step in steps]
        assert not engine.has
        await held.empty()
        dear.extend(given)

    dear: list[bool] = []
    asyncio.run(run())
    return dear, outcomes


def test_image_of_a_lost_worker_runs_once_more_and_alone() -> None:
    assert one(WorkerLost("died"), ANSWER) == ([False, True], [ANSWER])
    dear, (outcome,) = one(WorkerLost("died"), WorkerLost("stuck"))
    assert dear == [False, True]
    assert isinstance(outcome, WorkerLost)


def test_image_that_turns_out_to_be_dear_begins_again_as_such() -> None:
    costly = ImageTooCostly("too long")
    assert one(costly, ANSWER) == ([False, True], [ANSWER])
    assert one(costly, costly) == ([False, True], [costly])
    assert one(costly, WorkerLost("died"), ANSWER) == ([False, True, True], [ANSWER])


def test_error_of_an_image_is_its_own() -> None:
    failed = InferenceFailed()
    assert one(failed) == ([False], [failed])


def test_engine_that_has_failed_ends_all() -> None:
    engine, told = Engine(), list[Exception]()

    async def run() -> None:
        held = Window(engine, 0.5, 1, 10_000, longest_s=1.0, on_failure=told.append)  # type: ignore[arg-type]
        await held.run(b"image", lambda _: pytest.fail("it is no outcome of the image"))
        waiting = asyncio.ensure_future(held.run(b"another", lambda _: None))
        await asyncio.sleep(0)
        engine.answer(NoWorker(1.0))
        with pytest.raises(NoWorker):
            await waiting
        with pytest.raises(NoWorker):
            await held.empty()
        with pytest.raises(NoWorker):  # whether there is room or not
            await held.run(b"a third", lambda _: None)
        assert [type(each) for each in told] == [NoWorker]

    asyncio.run(run())


def test_answer_that_cannot_be_taken_ends_all_and_is_not_forgotten() -> None:
    engine = Engine()

    def refuse(_: Outcome) -> None:
        raise OSError("no room")

    async def run() -> None:
        held = window(engine)
        await held.run(b"image", refuse)
        engine.answer()
        with pytest.raises(OSError, match="no room"):
            await held.empty()

    asyncio.run(run())
