"""Times of several ways to do one thing, measured in turns so that all meet the same conditions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

Times = dict[str, npt.NDArray[np.float64]]


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int, seconds_each: float, title: str) -> Times:
    """Run every case in every round, each for a moment of its own; return its seconds a run, (rounds,).

    Comparing figures of the same round cancels what changes slowly, such as the processor's clock.
    """
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in tqdm(range(rounds), desc=title, unit="round", leave=False):
        for name, run in cases.items():
            run()  # the case before has emptied the caches
            times[name].append(_seconds_a_run(run, seconds_each))
    return {name: np.array(taken) for name, taken in times.items()}


def _seconds_a_run(run: Callable[[], object], seconds: float) -> float:
    runs, started = 0, time.perf_counter()
    while True:
        run()
        runs += 1
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return elapsed / runs
