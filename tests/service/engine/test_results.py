from __future__ import annotations

from collections.abc import Callable

import pytest

from service.engine.errors import DeadlineExceeded, InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.inference_cost import InferenceCost
from service.engine.job import Answer, Outcome, PendingJob
from service.engine.objective import Objective
from service.engine.results import Results


def _answer(batch_size: int) -> Answer:
    return Answer((), (), (), 1, batch_size, 0.0, 0.0, 0.0)


def _jobs(count: int, answered: Callable[[Outcome], None]) -> list[PendingJob]:
    return [PendingJob(b"", 0.0, 1.0, answered) for _ in range(count)]


def test_everybody_is_told_their_own_in_order() -> None:
    told: list[Outcome] = []
    outcomes: list[Outcome] = [_answer(2), DeadlineExceeded(), _answer(2)]
    Results(Health(), lambda _: None, InferenceCost(), Objective(None)).tell(_jobs(3, told.append), outcomes)
    assert told == outcomes


def test_every_batch_that_ran_is_counted_once() -> None:
    sizes: list[int] = []
    results = Results(Health(), sizes.append, InferenceCost(), Objective(None))
    results.tell(_jobs(4, lambda _: None), [_answer(3), ValueError(), _answer(3), _answer(3)])
    results.tell(_jobs(3, lambda _: None), [_answer(1), InferenceFailed(), _answer(1)])  # each ran again alone
    assert sizes == [3, 1, 1]


@pytest.mark.parametrize(
    ("outcome", "failing"),
    [(InferenceFailed(), True), (WorkerLost("died"), True), (ValueError("no image"), False), (_answer(1), False)],
)
def test_health_is_told_what_says_something_about_the_model(outcome: Outcome, failing: bool) -> None:
    health = Health()
    Results(health, lambda _: None, InferenceCost(), Objective(None)).tell(_jobs(3, lambda _: None), [outcome] * 3)
    assert health.failing is failing


def test_whoever_cannot_take_their_answer_keeps_nobody_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Outcome] = []

    def take(outcome: Outcome) -> None:
        told.append(outcome)
        if len(told) == 1:
            raise LookupError("a bug of the service")

    outcomes: list[Outcome] = [_answer(2), _answer(2)]
    Results(Health(), lambda _: None, InferenceCost(), Objective(None)).tell(_jobs(2, take), outcomes)
    assert told == outcomes
    assert "a bug of the service" in caplog.text


def test_dear_images_teach_nothing_of_others() -> None:
    cost, objective = InferenceCost(), Objective(None)
    results = Results(Health(), lambda _: None, cost, objective)
    answer = Answer((1.0,), (), (), 10**6, 1, 0.6, 0.0, 0.01)
    for dear in (True, False):
        job = _jobs(1, lambda _: None)[0]
        job.dear = dear
        results.tell([job], [answer])
        assert (cost.seconds(10**6) > 0) == (not dear)


@pytest.mark.parametrize(("max_wait_s", "learned"), [(0.0, False), (0.005, True)])
def test_images_that_waited_for_company_alone_count_as_unloaded(max_wait_s: float, learned: bool) -> None:
    objective = Objective(None)
    results = Results(Health(), lambda _: None, InferenceCost(), objective, max_wait_s)
    for _ in range(50):
        results.tell(_jobs(1, lambda _: None), [Answer((1.0,), (), (), 10**6, 1, 0.001, 0.005, 0.01)])
    assert (objective.seconds < 1) == learned
