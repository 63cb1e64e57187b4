from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifact.preprocessing import Float32Array
from service.engine.runtimes import selection
from service.engine.runtimes.registry import RuntimeKind
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import local_pool
from service.engine.workers.process import WorkerProcess
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input
from tests.service.engine.looped import LoopedEngine, Master, engine_on
from tests.service.engine.queueing.desk import Clock
from tests.service.engine.runtimes.artifacts import Exported, exported_shape
from tests.service.engine.runtimes.lab import Lab
from tests.service.engine.workers.processes import MakeMaster, MakeWorker, echo_process

MakeEngine = Callable[..., LoopedEngine]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runtime(echo_runtime: EchoRuntime) -> EchoRuntime:
    """Runs nothing, and waits or fails when told to."""
    return echo_runtime


@pytest.fixture
def make_engine(runtime: EchoRuntime) -> Iterator[MakeEngine]:
    """Engines on the echo runtime that are stopped at the end."""
    engines = []

    def make(
        workers: int = 1,
        max_batch: int = 8,
        capacity: int = 1000,
        prepare: Callable[[float], Float32Array] = echo_input,
        clock: Callable[[], float] = time.monotonic,
        **arguments: object,
    ) -> LoopedEngine:
        tuning = Tuning(BatchPolicy(workers, max_batch, max_wait_ms=0))
        pool = local_pool(runtime, LocalWorker(runtime, lambda image: prepare(float(image)), clock), tuning)
        engines.append(LoopedEngine(engine_on(pool, capacity, clock=clock, **arguments)))
        return engines[-1]

    yield make
    runtime.release()
    for engine in engines:
        engine.close()


@pytest.fixture
def make_worker() -> Iterator[MakeWorker]:
    """Worker processes that are ended at the end."""
    made = []

    def make(stuck_s: float = PATIENCE_S, **options: object) -> WorkerProcess:
        made.append(echo_process(stuck_s, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.abort()
        worker.close()


@pytest.fixture
def make_master() -> Iterator[MakeMaster]:
    """Masters of worker processes, which are ended at the end."""
    made = []

    def make(stuck_s: float = PATIENCE_S, **options: object) -> Master:
        made.append(Master(echo_process(stuck_s, **options)))
        return made[-1]

    yield make
    for master in made:
        master.close()


@pytest.fixture
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "all gated")


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: Exported) -> Lab:
    lab = Lab(exported, tmp_path / "cache")
    monkeypatch.setattr(selection, "time", SimpleNamespace(perf_counter=lab.clock))
    monkeypatch.setattr(RuntimeKind, "open", lab.open)
    return lab
