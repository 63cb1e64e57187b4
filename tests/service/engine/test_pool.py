from __future__ import annotations

import pytest

from service.engine.batcher import BatchPolicy
from service.engine.pool import local_pool, process_pool
from service.engine.tuning import Tuning
from service.engine.worker import LocalWorker
from service.engine.worker_process import WorkerProcess
from tests.runtimes import EchoRuntime, echo_input, echo_manifest
from tests.service.engine.echo_worker import WORKERS
from tests.service.engine.processes import MakeWorker, is_running, jobs, values


def _first(make_worker: MakeWorker, **options: object) -> WorkerProcess:
    first = make_worker(**options)
    first.launch(tune=True)
    return first


def test_pool_has_as_many_processes_as_the_first_found_best(make_worker: MakeWorker) -> None:
    pool = process_pool(echo_manifest(), _first(make_worker), make_worker)
    assert pool.tuning.policy.workers == len(pool.workers) == WORKERS
    assert pool.runtime.name == "echo 1"
    for number, worker in enumerate(pool.workers):
        if not worker.alive:
            worker.start()
        assert values(worker.work(jobs(str(number)))) == [float(number)]
    assert len({worker.pid for worker in pool.workers}) == WORKERS


def test_first_process_is_kept_where_it_tried_nothing(make_worker: MakeWorker) -> None:
    first = _first(make_worker)
    pid = first.pid
    pool = process_pool(echo_manifest(), first, make_worker)
    assert pool.workers[0].pid == pid
    assert pool.workers[0].alive


def test_first_process_is_replaced_where_it_tried_every_runtime(make_worker: MakeWorker) -> None:
    first = _first(make_worker, first=True)
    pid = first.pid
    assert pid is not None
    pool = process_pool(echo_manifest(), first, make_worker)
    assert not is_running(pid)
    assert pool.workers[0].pid not in (None, pid)
    pool.workers[0].start()
    assert values(pool.workers[0].work(jobs("7"))) == [7.0]


def test_first_process_must_have_tuned(make_worker: MakeWorker) -> None:
    first = make_worker()
    first.launch()
    with pytest.raises(ValueError, match="tune"):
        process_pool(echo_manifest(), first, make_worker)


def test_local_pool_is_one_worker_for_every_thread() -> None:
    runtime = EchoRuntime()
    worker = LocalWorker(runtime, echo_input)
    pool = local_pool(runtime, worker, Tuning(BatchPolicy(2, max_batch=4, max_wait_ms=0)))
    assert pool.workers == [worker, worker]
    assert (pool.manifest, pool.runtime.name) == (runtime.manifest, "echo 1")
