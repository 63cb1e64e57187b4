from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from artifact.preprocessing import Float32Array
from service.engine.errors import DeadlineExceeded, InferenceFailed, InvalidTensor
from service.engine.job import Answer, ImageJob, Outcome
from service.engine.workers.local import LocalWorker
from tests.runtimes import EchoRuntime, echo_input
from tests.service.engine.queueing.desk import Clock
from tests.service.engine.workers.processes import job


def _prepare(image: bytes) -> Float32Array:
    return echo_input(float(image))


@pytest.fixture
def worker(runtime: EchoRuntime) -> LocalWorker:
    return LocalWorker(runtime, _prepare)


def _work(worker: LocalWorker, *values: float) -> list[Outcome]:
    return worker.work([job(repr(value).encode()) for value in values])


def _values(outcomes: list[Outcome]) -> list[float | str]:
    """The number each image was answered with, or the name of its failure."""
    return [float(one.logits[0]) if isinstance(one, Answer) else type(one).__name__ for one in outcomes]


def test_batch_is_run_together_and_everybody_gets_their_own(worker: LocalWorker, runtime: EchoRuntime) -> None:
    outcomes = _work(worker, 3.0, 1.0, 2.0)
    assert _values(outcomes) == [3.0, 1.0, 2.0]
    assert [one.batch_size for one in outcomes if isinstance(one, Answer)] == [3, 3, 3]
    assert runtime.batches == [[3.0, 1.0, 2.0]]


def _tensors(*images: Float32Array) -> list[ImageJob]:
    return [replace(job(image.astype("<f4").tobytes()), is_tensor=True) for image in images]


def test_tensors_are_run_as_they_were_sent_beside_image_files(worker: LocalWorker, runtime: EchoRuntime) -> None:
    outcomes = worker.work([*_tensors(echo_input(-0.5)), job(b"2.0")])
    assert _values(outcomes) == [-0.5, 2.0]
    assert runtime.batches == [[-0.5, 2.0]]


def test_tensor_for_which_the_network_overflows_is_its_clients_fault(worker: LocalWorker, runtime: EchoRuntime) -> None:
    run = runtime.run

    def overflow(images: Float32Array, offsets: Float32Array) -> tuple[Float32Array, Float32Array]:
        logits, margins = run(images, offsets)
        return logits * np.float32(1e38), margins

    runtime.run = overflow  # type: ignore[method-assign]
    with np.errstate(over="ignore"):
        outcomes = worker.work([*_tensors(echo_input(9.0)), job(b"9.0"), job(b"0.0")])
    assert _values(outcomes) == ["InvalidTensor", "InferenceFailed", 0.0]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_tensor_with_numbers_that_are_none_is_refused_and_never_run(
    worker: LocalWorker, runtime: EchoRuntime, number: float
) -> None:
    tensor = echo_input(1.0)
    tensor[2, 1, 1] = number
    assert _values(worker.work(_tensors(tensor, echo_input(2.0)))) == ["InvalidTensor", 2.0]
    assert runtime.batches == [[2.0]]


@pytest.mark.parametrize("size", [0, 44, 47, 49, 52])
def test_tensor_of_another_size_is_refused(worker: LocalWorker, size: int) -> None:
    (outcome,) = worker.work([replace(job(bytes(size)), is_tensor=True)])
    assert isinstance(outcome, InvalidTensor)
    assert str(outcome) == f"an image's tensor has 3 x 2 x 2 numbers of 4 bytes, not {size} bytes"


def test_batch_that_fails_is_run_again_image_by_image(worker: LocalWorker, runtime: EchoRuntime) -> None:
    runtime.poison = {2.0}
    assert _values(_work(worker, 1.0, 2.0, 3.0)) == [1.0, "InferenceFailed", 3.0]
    assert runtime.batches == [[1.0, 2.0, 3.0], [1.0], [2.0], [3.0]]


def test_numbers_that_are_none_are_a_failure_and_no_answer(worker: LocalWorker) -> None:
    outcomes = _work(worker, 1.0, float("nan"), float("inf"), 2.0)
    assert _values(outcomes) == [1.0, "InferenceFailed", "InferenceFailed", 2.0]
    assert "no numbers" in str(outcomes[1].__cause__)  # type: ignore[union-attr]


def test_margins_that_are_no_numbers_are_a_failure_too(
    worker: LocalWorker, runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(images: Float32Array, _: Float32Array) -> tuple[Float32Array, Float32Array]:
        return np.zeros((len(images), 3), np.float32), np.full((len(images), 2), np.nan, np.float32)

    monkeypatch.setattr(runtime, "run", run)
    assert _values(_work(worker, 1.0)) == ["InferenceFailed"]


def test_time_that_its_neighbours_take_counts_against_an_image(runtime: EchoRuntime) -> None:
    clock = Clock()
    prepared = []

    def prepare(image: bytes) -> Float32Array:
        prepared.append(float(image))
        clock.now += 3
        return _prepare(image)

    jobs = [
        ImageJob(b"%d" % row, clock.now, clock.now + within) for row, within in enumerate((4.0, 5.0, 6.0, 5.5), start=1)
    ]
    outcomes = LocalWorker(runtime, prepare, clock).work(jobs)
    # The second is ready after six seconds, which is too late; the third is not even begun; nor the fourth.
    assert _values(outcomes) == [1.0, *["DeadlineExceeded"] * 3]
    assert all(type(one) is DeadlineExceeded for one in outcomes[1:])
    assert prepared == [1.0, 2.0]
    assert runtime.batches == [[1.0]]


def test_wait_before_the_batch_begins_is_time_in_the_queue(runtime: EchoRuntime) -> None:
    clock = Clock()
    jobs = [ImageJob(b"1", clock.now - 3.0, clock.now + 9.0), ImageJob(b"2", clock.now - 1.0, clock.now + 9.0)]
    clock.now += 2.0
    outcomes = LocalWorker(runtime, _prepare, clock).work(jobs)
    assert [one.queue_s for one in outcomes if isinstance(one, Answer)] == [5.0, 3.0]


def test_job_that_has_waited_too_long_is_not_begun(runtime: EchoRuntime) -> None:
    clock = Clock()
    late, fine = ImageJob(b"1", clock.now, clock.now + 2.0), ImageJob(b"2", clock.now, clock.now + 2.5)
    clock.now += 2.0
    assert _values(LocalWorker(runtime, _prepare, clock).work([late, fine])) == ["DeadlineExceeded", 2.0]
    assert runtime.batches == [[2.0]]


def test_check_runs_a_batch_with_gates_both_open_and_closed(worker: LocalWorker, runtime: EchoRuntime) -> None:
    worker.check(3)
    assert runtime.batches == [[0.0, 0.0, 0.0]]
    assert runtime.offsets == [[1e4, -1e4, 1e4]]


def test_check_of_a_model_that_does_not_run_fails(worker: LocalWorker, runtime: EchoRuntime) -> None:
    runtime.poison = {0.0}
    with pytest.raises(InferenceFailed) as caught:
        worker.check(1)
    assert "poisoned" in str(caught.value.__cause__)


def test_check_of_a_model_that_gives_no_numbers_fails(
    worker: LocalWorker, runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(images: Float32Array, _: Float32Array) -> tuple[Float32Array, Float32Array]:
        return np.full((len(images), 3), np.nan, np.float32), np.zeros((len(images), 2), np.float32)

    monkeypatch.setattr(runtime, "run", run)
    with pytest.raises(InferenceFailed):
        worker.check(1)


def test_every_image_of_a_batch_has_its_own_gate_offset(worker: LocalWorker, runtime: EchoRuntime) -> None:
    jobs = [job(b"1"), job(b"2")]
    jobs[1].gate_offset = -1.5
    assert _values(worker.work(jobs)) == [1.0, 2.0]
    assert runtime.offsets == [[0.0, -1.5]]
