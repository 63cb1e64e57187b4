"""What becomes of the service under loads that last, by simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.service.engine.queueing.simulation import Simulation

_EACH_S = 0.01

Simulate = Callable[..., Simulation]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Simulations that are closed at the end."""
    with ExitStack() as opened:
        yield lambda *args, **arguments: opened.enter_context(closing(Simulation(*args, **arguments)))


def _small_batches_take_longer(size: int) -> float:
    return 0.003 + 0.0001 * size


def _burst(simulation: Simulation, requests: int) -> None:
    """More at once than the queue takes."""
    for _ in range(requests):
        simulation.ask()
    assert simulation.tally.refused > 100


@pytest.mark.parametrize("load", [0.5, 0.7, 0.9])
def test_load_that_can_be_borne_is_borne_again_after_a_burst(simulate: Simulate, load: float) -> None:
    simulation = simulate(lambda size: size * _EACH_S)
    simulation.offer(load * 2 / _EACH_S, 60)
    simulation.run(10)
    _burst(simulation, 300)
    simulation.run(20)
    after = simulation.run(30)
    assert (after.refused, after.late) == (0, 0)
    assert simulation.engine.ready


@pytest.mark.parametrize("workers", [1, 2])
def test_load_that_full_batches_bear_is_borne_again_after_a_burst(simulate: Simulate, workers: int) -> None:
    simulation = simulate(_small_batches_take_longer, workers, max_batch=16)
    load_per_s = 0.6 * workers * 16 / _small_batches_take_longer(16)
    simulation.offer(load_per_s, 12)
    simulation.run(1)
    _burst(simulation, 1000)
    simulation.run(6)
    after = simulation.run(5)
    assert (after.refused, after.late) == (0, 0)
    assert simulation.engine.ready


@pytest.mark.parametrize("load", [1.2, 1.5, 2, 3])
def test_under_overload_workers_are_busy_and_answers_soon(simulate: Simulate, load: float) -> None:
    simulation = simulate(lambda size: size * _EACH_S)
    simulation.offer(load * 2 / _EACH_S, 60)
    simulation.run(20)
    tally = simulation.run(40)
    assert tally.answered > 0.85 * 40 * 2 / _EACH_S
    assert tally.p99_s <= 3 * _EACH_S
    assert tally.late == 0
    assert simulation.engine.problem == "the queue has been full for a while"


@pytest.mark.parametrize("load", [1.2, 1.5, 3])
def test_queue_that_is_longer_than_deadlines_allow_lets_nobody_be_late(simulate: Simulate, load: float) -> None:
    simulation = simulate(lambda size: size * 0.5, workers=1)
    simulation.offer(load * 2, 400)
    simulation.run(50)
    tally = simulation.run(350)
    assert tally.answered > 0.8 * 350 * 2
    assert tally.late < 0.02 * tally.answered


def test_service_whose_workers_hang_says_so_until_they_go_on(simulate: Simulate) -> None:
    simulation = simulate(lambda size: size * _EACH_S)
    simulation.offer(100, 60)
    simulation.run(5)
    for worker in simulation.workers:
        worker.hangs = True
    simulation.run(15)
    assert not simulation.engine.ready
    for worker in simulation.workers:
        worker.hangs = False
        worker.go_on()
    simulation.run(10)
    assert simulation.engine.ready
    assert simulation.run(10).refused == 0
