"""One run: the engine is started, what is still to be done goes through it, and the engine is stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from service.dataset.items import Dataset, Unreadable
from service.dataset.output import Output
from service.dataset.parts import Parts
from service.dataset.progress import Progress
from service.dataset.reading import PartEnd, Piece, pieces, read_ahead
from service.dataset.rows import Columns
from service.dataset.window import Window
from service.engine.crew import Crew
from service.engine.engine import Engine
from service.engine.scheduling_policy import set_policy
from service.engine.workers.pool import WorkerPool

# Images for each worker that the engine has at a time: some full batches, and enough for while the loop is busy.
_BATCHES_EACH, _LEAST_EACH = 4, 32
_MOST_IMAGE_BYTES, _MOST_PARTS = 64_000_000, 4
# As the server has it, see `service.http.loop_priority`: workers share cores with this process, and come first.
_SWITCH_INTERVAL_S = 20e-6


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        dataset: that is classified.
        output: where the answers go.
        columns: that they have.
        gate_offset: of all images.
        part_rows: most rows of a part.
        as_completed: whether the rows of a part are in the order in which they were done.
        longest_s: that decoding one image may take, in seconds.
    """

    dataset: Dataset
    output: Output
    columns: Columns
    gate_offset: float
    part_rows: int
    as_completed: bool
    longest_s: float


async def run(pool: WorkerPool, work: Work) -> bool:
    """Classify what is not finished; say whether all of it is now, or the process was asked to end before.

    Raises:
        ArtifactError, EngineError: the model does not run here, or does not any more.
        DatasetError: a part cannot be written.
    """
    crew = Crew(pool.workers)
    classifying = asyncio.ensure_future(_start_and_classify(crew, pool, work))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, classifying.cancel)
    try:
        await classifying
    except asyncio.CancelledError:
        return False
    finally:
        await crew.stop(0)
        if pool.workshop:
            await asyncio.to_thread(pool.workshop.close)
    return True


async def _start_and_classify(crew: Crew, pool: WorkerPool, work: Work) -> None:
    engine = await start_engine(crew, pool)
    with favouring_workers():
        await classify(engine, work)


async def start_engine(crew: Crew, pool: WorkerPool) -> Engine:
    """An engine for datasets, which runs.

    Raises:
        ArtifactError, EngineError: the model does not run here.
    """
    crew.scheduler.unhurried = True
    engine = Engine(crew, pool.model, most_images(pool))
    await crew.start()
    return engine


@contextmanager
def favouring_workers() -> Iterator[None]:
    """Let workers come first where they share a core with this process."""
    interval, changed = sys.getswitchinterval(), set_policy("SCHED_BATCH")
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if changed:
            set_policy("SCHED_OTHER")


def most_images(pool: WorkerPool) -> int:
    """How many images the engine is to have at a time, which its queue must have room for."""
    return max(_LEAST_EACH, _BATCHES_EACH * pool.model.tuning.policy.max_batch) * len(pool.workers)


async def classify(engine: Engine, work: Work) -> None:
    """Have all that is not finished go through an engine that runs, and tell the progress."""
    sources = work.dataset.sources
    names = [source.name for source in sources]
    passed = [0, *accumulate(source.size for source in sources)]
    at = 0  # of all of these
    todo = pieces(work.dataset, work.output.finished, work.part_rows)
    before = work.output.tally.images
    with ExitStack() as stack:
        parts = Parts(work.output, work.columns, names, work.part_rows, work.as_completed, _MOST_PARTS)
        stack.callback(parts.close)
        window = Window(
            engine, work.gate_offset, engine.queue_capacity, _MOST_IMAGE_BYTES, work.longest_s, on_failure=parts.fail
        )
        progress = Progress(lambda: before + parts.images, lambda: at / passed[-1] if passed[-1] else 1.0)
        stack.enter_context(progress.told(work.dataset.images))
        async with aclosing(read_ahead(todo)) as batches:
            async for batch in batches:
                for piece in batch:
                    await _take(piece, window, parts)
                    if isinstance(piece, Piece):
                        at = passed[piece.part.source] + piece.item.position
        await window.empty()
        await parts.all_written()
        at = passed[-1]


async def _take(piece: Piece | PartEnd, window: Window, parts: Parts) -> None:
    await parts.begin(piece.part)
    if isinstance(piece, PartEnd):
        parts.end(piece)
    elif isinstance(piece.item.content, Unreadable):
        parts.note(piece, piece.item.content)
    else:
        await window.run(piece.item.content, partial(parts.note, piece))
