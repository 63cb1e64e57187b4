"""How long one thing takes beside another, measured so close together that both meet the same machine.

A shared or virtual machine changes its speed by a quarter within seconds, in the middle of any longer measurement. So
every measurement is set against a yardstick taken right before and right after it, and only such ratios are gathered.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

Measured = TypeVar("Measured")
Ratios = dict[str, npt.NDArray[np.float64]]


def bracketed(
    yardstick: Callable[[], float], measurements: Iterable[Callable[[], Measured]]
) -> Iterator[tuple[float, Measured]]:
    """Take the measurements in order; give each the mean of the yardstick right before and right after it."""
    before = yardstick()
    for measure in measurements:
        measured = measure()
        after = yardstick()
        yield (before + after) / 2, measured
        before = after


def paired(
    base: Callable[[], object],
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    slice_s: float,
    title: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratios:
    """Time every case in every round between two slices of `base`.

    Args:
        base: runs what all are compared with, once.
        cases: each runs one thing once.
        rounds: ratios for each case.
        slice_s: about how long base or case runs at a stretch; at least for one run, whatever that takes.
        title: of the progress bar.
        clock: in seconds.

    Returns:
        The time of each case, of that of the base, (rounds,).
    """
    slices = {name: _sliced(run, slice_s, clock) for name, run in cases.items()}
    order = tqdm(list(cases) * rounds, desc=title, unit="slice", leave=False)
    ratios: dict[str, list[float]] = {name: [] for name in cases}

    def timed(name: str) -> Callable[[], tuple[str, float]]:
        return lambda: (name, slices[name]())

    for base_s, (name, case_s) in bracketed(_sliced(base, slice_s, clock), map(timed, order)):
        ratios[name].append(case_s / base_s)
    return {name: np.array(each) for name, each in ratios.items()}


def _sliced(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> Callable[[], float]:
    """A slice of about so many seconds, which returns the seconds that a run took in it."""
    runs = max(1, round(seconds / _seconds_a_run(run, 1, clock)))
    return lambda: _seconds_a_run(run, runs, clock)


def _seconds_a_run(run: Callable[[], object], runs: int, clock: Callable[[], float]) -> float:
    collecting = gc.isenabled()
    gc.disable()  # whom it hits is chance
    try:
        run()  # whoever ran before has emptied the caches
        started = clock()
        for _ in range(runs):
            run()
        return (clock() - started) / runs
    finally:
        if collecting:
            gc.enable()
