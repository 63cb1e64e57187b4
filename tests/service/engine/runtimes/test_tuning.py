from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins
from artifact.cores import usable_cores
from artifact.preprocessing import Float32Array
from service.engine.errors import InferenceFailed
from service.engine.runtimes import tuning
from service.engine.runtimes.tuning import BatchPolicy, PolicyWishes, Tuning, tune
from tests.runtimes import PATIENCE_S, EchoRuntime
from tests.service.engine.queueing.desk import Clock

IMAGES = np.arange(5 * 12, dtype=np.float32).reshape(5, 3, 2, 2)
SetThreads = Callable[[dict[int, float]], None]


class TimedRuntime(EchoRuntime):
    """Takes as long as it is told to, on a clock of its own."""

    def __init__(self, clock: Clock, seconds: Callable[[int], float] = float) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        self.clock.now += self.seconds(len(images))
        return super().run(images, gate_offset)

    @property
    def sizes(self) -> list[int]:
        """How many images were ever run together, each size once."""
        return sorted({len(batch) for batch in self.batches})


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> TimedRuntime:
    """On a machine with one core; a batch takes as long as its images one by one."""
    clock = Clock()
    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(tuning, "usable_cores", lambda: 1)
    return TimedRuntime(clock)


@pytest.fixture
def set_threads(monkeypatch: pytest.MonkeyPatch) -> SetThreads:
    """Says how many runs a second this many threads do together."""

    def set_rates(rates: dict[int, float]) -> None:
        threads = [0]

        class Pool(ThreadPoolExecutor):
            def __init__(self, count: int) -> None:
                threads[0] = count
                super().__init__(count)

        monkeypatch.setattr(tuning, "ThreadPoolExecutor", Pool)
        monkeypatch.setattr(tuning, "_seconds", lambda run: (run(), threads[0] / rates[threads[0]])[1])
        monkeypatch.setattr(tuning, "usable_cores", lambda: max(rates))

    return set_rates


def test_all_that_is_set_is_kept_and_nothing_is_run(runtime: TimedRuntime) -> None:
    tuned = tune(runtime, IMAGES, PolicyWishes(workers=3, max_batch=7, max_wait_ms=0.0))
    assert tuned == Tuning(BatchPolicy(3, 7, 0.0), workers="set", max_batch="set", max_wait_ms="set")
    assert runtime.batches == []


@pytest.mark.parametrize(
    ("wishes", "policy", "sources"),
    [
        (PolicyWishes(), (1, 1, 0.0), ("measured", "measured", "fixed")),
        (PolicyWishes(workers=5), (5, 1, 0.0), ("set", "measured", "fixed")),
        (PolicyWishes(max_batch=6), (1, 6, 0.0), ("measured", "set", "fixed")),
        (PolicyWishes(max_wait_ms=3.5), (1, 1, 3.5), ("measured", "measured", "set")),
        (PolicyWishes(workers=2, max_wait_ms=0.0), (2, 1, 0.0), ("set", "measured", "set")),
        (PolicyWishes(workers=2, max_batch=4), (2, 4, 0.0), ("set", "set", "fixed")),
    ],
)
def test_what_is_set_is_kept_and_told_and_the_rest_is_measured(
    runtime: TimedRuntime, wishes: PolicyWishes, policy: tuple[int, int, float], sources: tuple[str, str, str]
) -> None:
    tuned = tune(runtime, IMAGES, wishes)
    assert tuned.policy == BatchPolicy(*policy)
    assert (tuned.workers, tuned.max_batch, tuned.max_wait_ms) == sources


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        pytest.param(lambda size: 1.0 * size, 1, id="nothing gained"),
        pytest.param(lambda size: 1.0 * size if size == 1 else 1.2 * size, 1, id="lost"),
        pytest.param(lambda size: 0.96 * size if size > 1 else 1.0, 1, id="4% gained"),
        pytest.param(lambda size: 0.94 * size if size > 1 else 1.0, 2, id="6% gained by two"),
        pytest.param(lambda size: 1.0 + 2.0 * size, 8, id="ever less gained"),
        pytest.param(lambda _: 1.0, 16, id="a batch for the price of an image"),
        pytest.param(
            lambda size: {1: 1.0, 2: 2.0, 4: 2.0}.get(size, 0.49 * size), 4, id="four, though two gain nothing"
        ),
    ],
)
def test_batch_is_the_smallest_that_gains_5_percent(
    runtime: TimedRuntime, seconds: Callable[[int], float], best: int
) -> None:
    runtime.seconds = seconds
    assert tune(runtime, IMAGES, PolicyWishes(workers=1)).policy.max_batch == best
    assert runtime.sizes == [1, 2, 4, 8, 16]


def test_batches_on_a_gpu_may_be_larger(runtime: TimedRuntime) -> None:
    runtime.seconds, runtime.device = (lambda _: 1.0), "cuda"
    assert tune(runtime, IMAGES, PolicyWishes(workers=1, max_wait_ms=0)).policy.max_batch == 32
    assert runtime.sizes == [1, 2, 4, 8, 16, 32]


def test_runtime_that_runs_no_batches_is_given_none(runtime: TimedRuntime) -> None:
    runtime.seconds, runtime.runs_batches = (lambda _: 1.0), False
    assert tune(runtime, IMAGES, PolicyWishes()).policy.max_batch == 1
    assert runtime.sizes == [1]


def test_first_run_is_no_measure(runtime: TimedRuntime) -> None:
    # It takes what it takes to allocate everything: were it counted, one image would seem slow, and batches better.
    runtime.seconds = lambda size: 100.0 if not runtime.batches else 1.0 * size
    assert tune(runtime, IMAGES, PolicyWishes()).policy.max_batch == 1


def test_images_given_are_the_ones_measured_with(runtime: TimedRuntime) -> None:
    tune(runtime, IMAGES, PolicyWishes())
    firsts = IMAGES[:, 0, 0, 0].tolist()
    assert runtime.batches[0] == firsts[:1]
    (largest,) = {tuple(batch) for batch in runtime.batches if len(batch) == 16}
    assert largest == tuple((firsts * 4)[:16])
    assert all(not any(offsets) for offsets in runtime.offsets)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 96.0}, 2),  # a busy machine: the second thread may gain nothing now
        ({1: 100.0, 2: 94.0}, 1),
        ({1: 100.0, 2: 200.0, 4: 400.0}, 4),
        ({1: 100.0, 2: 200.0, 4: 205.0}, 4),
        ({1: 100.0, 2: 90.0, 4: 80.0}, 1),
        ({1: 100.0, 2: 200.0, 3: 300.0}, 3),  # three cores: 1, 2, and all of them
        ({1: 100.0, 2: 200.0, 4: 350.0, 6: 500.0}, 6),
    ],
)
def test_threads_are_one_for_every_core_unless_fewer_are_5_percent_faster(
    runtime: TimedRuntime, set_threads: SetThreads, rates: dict[int, float], best: int
) -> None:
    set_threads(rates)
    tuned = tune(runtime, IMAGES, PolicyWishes(max_batch=1))
    assert (tuned.policy.workers, tuned.workers) == (best, "measured")


def test_gpu_is_fed_by_a_worker_on_each_core(runtime: TimedRuntime, set_threads: SetThreads) -> None:
    set_threads(dict.fromkeys((1, 2, 4, 8, 16), 100.0))
    runtime.device = "cuda"
    tuned = tune(runtime, IMAGES, PolicyWishes(max_batch=1))
    assert (tuned.policy.workers, tuned.workers) == (16, "fixed")


def test_threads_run_batches_of_the_size_that_was_chosen(runtime: TimedRuntime) -> None:
    tune(runtime, IMAGES, PolicyWishes(max_batch=3))
    assert [len(batch) for batch in runtime.batches] == [1] + [3] * (len(runtime.batches) - 1)
    assert len(runtime.batches) > 1


def test_threads_are_measured_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = Barrier(2)

    class Meeting(EchoRuntime):
        """Runs on a second thread only while the first one runs."""

        def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
            if 1 <= len(self.batches) <= 2:  # after the first run of all, before the one thread alone
                barrier.wait(PATIENCE_S)
            return super().run(images, gate_offset)

    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    monkeypatch.setattr(tuning, "_seconds", lambda run: (run(), 1.0)[1])
    assert tune(Meeting(), IMAGES, PolicyWishes(max_batch=1)).policy.workers == 2
    assert not barrier.broken


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_not_waited_for(runtime: TimedRuntime, device: str) -> None:
    runtime.device = device
    tuned = tune(runtime, IMAGES, PolicyWishes(workers=1, max_batch=8))
    assert (tuned.policy.max_wait_ms, tuned.max_wait_ms) == (0.0, "fixed")


@pytest.mark.parametrize("wishes", [PolicyWishes(), PolicyWishes(workers=1), PolicyWishes(max_batch=4)])
def test_model_that_does_not_run_is_told(runtime: TimedRuntime, wishes: PolicyWishes) -> None:
    runtime.poison = {IMAGES[0, 0, 0, 0]}
    with pytest.raises(InferenceFailed) as caught:
        tune(runtime, IMAGES, wishes)
    assert "poisoned" in str(caught.value.__cause__)


def test_model_that_runs_no_batches_though_it_says_so_is_told(runtime: TimedRuntime) -> None:
    runtime.poison = {IMAGES[1, 0, 0, 0]}
    for wishes in (PolicyWishes(), PolicyWishes(max_batch=2)):  # in the second case it fails on other threads only
        with pytest.raises(InferenceFailed) as caught:
            tune(runtime, IMAGES, wishes)
        assert "poisoned" in str(caught.value.__cause__)


def test_real_runtime_is_tuned_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_SECONDS_EACH", 0.001)
    policy = tune(EchoRuntime(), IMAGES, PolicyWishes()).policy
    assert 1 <= policy.workers <= usable_cores()
    assert policy.max_batch in (1, 2, 4, 8, 16)
    assert policy.max_wait_ms == 0


def test_a_run_is_measured_once_at_least_and_by_its_median(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=clock))
    taken = iter([0.01, 0.5])

    def run() -> None:
        clock.now += next(taken)

    assert tuning._seconds(run) == pytest.approx((0.01 + 0.5) / 2)
    taken = iter([9.0])
    assert tuning._seconds(run) == pytest.approx(9.0)
    taken = iter([0.01, 0.015, 0.02, 0.9])
    assert tuning._seconds(run) == pytest.approx(0.0175)
