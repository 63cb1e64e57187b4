"""What a replica of the engine has, without Ray."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from artifact.manifest import ArtifactError
from deploy.ray_engine import NOBODY, Engines
from service.engine.crew import Crew
from service.engine.errors import NoWorker
from service.engine.ipc.codec import OutcomeCodec, pack_jobs
from service.engine.ipc.frames import unframed
from service.engine.job import Answer, ImageJob, Outcome
from service.images.decoding import IMAGE_ERRORS, NotAnImage
from service.settings import Settings
from tests.service.engine.queueing.desk import Clock

pytestmark = pytest.mark.slow
Work = Callable[[Engines], Coroutine[Any, Any, None]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def do(artifact: Path, clock: Clock) -> Callable[[Work], None]:
    """Does something with the engines of a replica whose model is the small network."""
    settings = Settings(model=artifact, runtime="onnx", device="cpu", workers=2, max_batch=4, max_wait_ms=0)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Engines]:
        engines = Engines(settings, clock)
        try:
            yield engines
        finally:
            await engines.close()

    def do(work: Work) -> None:
        async def done() -> None:
            async with opened() as engines:
                await work(engines)

        asyncio.run(done())

    return do


async def _outcomes(engines: Engines, folder: Path, images: list[bytes], within: float = 30.0) -> list[Outcome]:
    manifest = (await engines.open(str(folder))).manifest
    frame = await engines.run(str(folder), pack_jobs([ImageJob(image, 0.0, within) for image in images]))
    return OutcomeCodec(manifest, IMAGE_ERRORS).unpack(unframed(frame), len(images))


def test_batch_runs_as_a_whole(do: Callable[[Work], None], artifact: Path, pictures: list[bytes]) -> None:
    async def work(engines: Engines) -> None:
        outcomes = await _outcomes(engines, artifact, [pictures[0], b"no image", *pictures[1:3]])
        assert [type(each) for each in outcomes] == [Answer, NotAnImage, Answer, Answer]
        assert {each.batch_size for each in outcomes if isinstance(each, Answer)} == {3}
        together = await asyncio.gather(*(_outcomes(engines, artifact, pictures[:2]) for _ in range(6)))
        assert {each.batch_size for one in together for each in one if isinstance(each, Answer)} == {2}

    do(work)


def test_image_whose_time_is_over_is_not_run(do: Callable[[Work], None], artifact: Path, pictures: list[bytes]) -> None:
    async def work(engines: Engines) -> None:
        assert [type(each).__name__ for each in await _outcomes(engines, artifact, pictures[:1], within=-1)] == [
            "DeadlineExceeded"
        ]

    do(work)


def test_batch_for_which_there_is_no_worker_is_left_to_others(
    do: Callable[[Work], None], artifact: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(engines: Engines) -> None:
        await engines.open(str(artifact))
        frame = pack_jobs([ImageJob(pictures[0], 0.0, 30.0)])
        with monkeypatch.context() as patch:
            patch.setattr(Crew, "require_workers", _refuse)
            assert await engines.run(str(artifact), frame) == NOBODY
        assert await engines.run(str(artifact), frame) != NOBODY

    do(work)


def test_time_that_opening_takes_counts(
    do: Callable[[Work], None], artifact: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    other = shutil.copytree(artifact, tmp_path / "2")

    async def work(engines: Engines) -> None:
        manifest = (await engines.open(str(artifact))).manifest
        frame = await engines.run(str(other), pack_jobs([ImageJob(pictures[0], 0.0, 0.001)]))
        (outcome,) = OutcomeCodec(manifest, IMAGE_ERRORS).unpack(unframed(frame), 1)
        assert type(outcome).__name__ == "DeadlineExceeded"

    do(work)


def _refuse(_: Crew) -> None:
    raise NoWorker(1.0)


def test_other_version_is_opened_when_it_is_asked_for_and_closed_when_it_is_not(
    do: Callable[[Work], None], artifact: Path, pictures: list[bytes], tmp_path: Path, clock: Clock
) -> None:
    other = shutil.copytree(artifact, tmp_path / "2")

    async def work(engines: Engines) -> None:
        await engines.open(str(artifact))
        assert (engines.workers(str(artifact)) > 0, engines.workers(str(other))) == (True, 0)
        (outcome,) = await _outcomes(engines, other, pictures[:1])
        assert isinstance(outcome, Answer)
        assert engines.workers(str(other)) > 0
        clock.now += 1000
        assert engines.workers(str(artifact)) > 0
        await asyncio.sleep(0)  # it begins to be closed
        assert engines.workers(str(other)) == 0

    do(work)


def test_model_that_cannot_be_opened_is_tried_again(do: Callable[[Work], None], artifact: Path, tmp_path: Path) -> None:
    late = tmp_path / "late"

    async def work(engines: Engines) -> None:
        with pytest.raises(ArtifactError):
            await engines.open(str(late))
        await asyncio.to_thread(shutil.copytree, artifact, late)
        assert (await engines.open(str(late))).manifest.name == "small"

    do(work)
