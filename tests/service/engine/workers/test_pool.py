from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.engine.errors import WorkerLost
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers.base import Worker
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import ModelSource, local_pool, process_pool
from service.engine.workers.process import WorkerProcess
from service.engine.workers.thread import ThreadWorker
from tests.processes import is_running
from tests.runtimes import EchoRuntime, echo_input, echo_manifest
from tests.service.engine.looped import Master
from tests.service.engine.workers.echo_worker import WORKERS
from tests.service.engine.workers.processes import MakeWorker, jobs, values

SOURCE = ModelSource(0, Path(), echo_manifest())


@contextmanager
def _working(worker: Worker) -> Iterator[Master]:
    """The worker, started, until the end."""
    master = Master(worker)
    master.start()
    yield master
    master.close()


def _first(make_worker: MakeWorker, **options: object) -> WorkerProcess:
    first = make_worker(**options)
    first.launch(tune=True)
    return first


def test_pool_has_as_many_processes_as_the_first_found_best(make_worker: MakeWorker) -> None:
    pool = process_pool(SOURCE, _first(make_worker), make_worker)
    assert pool.model.tuning.policy.workers == len(pool.workers) == WORKERS
    assert pool.model.runtime.name == "echo 1"
    assert len({worker.pid for worker in pool.workers}) == WORKERS
    for number, worker in enumerate(pool.workers):
        with _working(worker) as master:
            assert values(master.work(jobs(str(number)))) == [float(number)]


def test_first_process_is_kept_where_it_tried_nothing(make_worker: MakeWorker) -> None:
    first = _first(make_worker)
    pid = first.pid
    pool = process_pool(SOURCE, first, make_worker)
    assert pool.workers[0].pid == pid
    assert pool.workers[0].alive


def test_first_process_is_replaced_where_it_tried_every_runtime(make_worker: MakeWorker) -> None:
    first = _first(make_worker, first=True)
    pid = first.pid
    assert pid is not None
    pool = process_pool(SOURCE, first, make_worker)
    assert not is_running(pid)
    assert pool.workers[0].pid not in (None, pid)
    with _working(pool.workers[0]) as master:
        assert values(master.work(jobs("7"))) == [7.0]


def test_first_process_that_dies_while_it_opens_the_model_is_replaced_once(
    make_worker: MakeWorker, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    pool = process_pool(SOURCE, _first(make_worker, dies_once=str(mark)), make_worker)
    assert not mark.exists()
    assert pool.workers[0].alive
    with pytest.raises(WorkerLost):
        process_pool(SOURCE, _first(make_worker, before="die"), make_worker)


def test_first_process_must_have_tuned(make_worker: MakeWorker) -> None:
    first = make_worker()
    first.launch()
    with pytest.raises(ValueError, match="tune"):
        process_pool(SOURCE, first, make_worker)


def test_local_pool_is_a_thread_for_every_worker() -> None:
    runtime = EchoRuntime()
    worker = LocalWorker(runtime, echo_input)
    pool = local_pool(runtime, worker, Tuning(BatchPolicy(2, max_batch=4, max_wait_ms=0)))
    assert [type(thread) for thread in pool.workers] == [ThreadWorker, ThreadWorker]
    assert (pool.model.manifest, pool.model.runtime.name) == (runtime.manifest, "echo 1")
