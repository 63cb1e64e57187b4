from __future__ import annotations

import gc
import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.timing import bracketed, paired

_SLICE_S, _BASE_S, _ROUNDS = 0.03, 0.004, 40
_COSTS = {"fast": 0.8, "slow": 1.3, "same": 1.0}  # of a run of the base


class _Machine:
    """A clock, and runs that take time on it.

    Its speed goes up and down by a quarter and sinks, and whatever runs after something else finds cold caches.

    Attributes:
        runs: how many there were.
    """

    def __init__(self) -> None:
        self.runs = 0
        self._now = 0.0
        self._warm: Callable[[], None] | None = None

    def clock(self) -> float:
        return self._now

    def work(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            slowness = 1 + 0.25 * math.sin(2 * math.pi * self._now / 3) + 0.02 * self._now
            self._now += seconds * slowness * (1 if self._warm is run else 1.5)
            self._warm = run
            self.runs += 1

        return run

    def mean(self, seconds: float, during: float) -> float:
        """Plain seconds a run, over a longer time."""
        run, runs, started = self.work(seconds), 0, self._now
        while self._now < started + during:
            run()
            runs += 1
        return (self._now - started) / runs


def test_pairing_gives_the_true_ratio_on_a_machine_whose_speed_drifts() -> None:
    machine = _Machine()
    cases = {name: machine.work(_BASE_S * cost) for name, cost in _COSTS.items()}
    ratios = paired(machine.work(_BASE_S), cases, _ROUNDS, _SLICE_S, "", machine.clock)
    for name, cost in _COSTS.items():
        assert ratios[name].shape == (_ROUNDS,)
        np.testing.assert_allclose(ratios[name], cost, rtol=0.02)
        assert np.median(ratios[name]) == pytest.approx(cost, rel=0.002)


def test_plain_means_one_after_the_other_do_not() -> None:
    machine = _Machine()
    base_s = machine.mean(_BASE_S, during=1.2)
    assert machine.mean(_BASE_S, during=1.2) / base_s < 0.9


def test_slice_has_as_many_runs_as_fit_and_one_before_that_is_not_measured() -> None:
    machine = _Machine()
    paired(machine.work(0.010), {"case": machine.work(0.005)}, 1, _SLICE_S, "", machine.clock)
    learning, base, case = 2, 1 + 3, 1 + 6
    assert machine.runs == 2 * learning + 2 * base + case


def test_run_longer_than_a_slice_is_measured_once() -> None:
    machine = _Machine()
    paired(machine.work(1.0), {"case": machine.work(1.0)}, 1, _SLICE_S, "", machine.clock)
    learning, a_slice = 2, 1 + 1
    assert machine.runs == 2 * learning + 3 * a_slice


def test_measurements_stand_between_two_of_the_yardstick() -> None:
    yardstick = iter([1.0, 3.0, 4.0])
    measurements = [lambda: "a", lambda: "b"]
    assert list(bracketed(lambda: next(yardstick), measurements)) == [(2.0, "a"), (3.5, "b")]


def test_garbage_is_not_collected_in_a_slice() -> None:
    machine, collecting = _Machine(), []
    work = machine.work(_BASE_S)

    def case() -> None:
        collecting.append(gc.isenabled())
        work()

    paired(machine.work(_BASE_S), {"case": case}, 1, _SLICE_S, "", machine.clock)
    assert not any(collecting)
    assert gc.isenabled()
