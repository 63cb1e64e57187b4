"""Time of work on a GPU, of several contenders in turns, so that all meet the same clocks and temperatures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MOST_RUNS = 2000


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Attributes:
        enqueue: has it run once more, without waiting.
        wait: until all runs are done.
        prepare: is called before its turn, untimed.
    """

    enqueue: Callable[[], object]
    wait: Callable[[], object]
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Timing:
    """Seconds of a run.

    Attributes:
        in_line: where the next is there already when one is done; what the device takes.
        alone: from asking until it is done.
    """

    in_line: float
    alone: float


def in_turns(
    contenders: Mapping[str, Contender],
    rounds: int = 7,
    slice_s: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Medians over the rounds; in each, every contender has a slice of about so many seconds."""
    runs = {name: _runs(contender, slice_s, clock) for name, contender in contenders.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            contender.prepare()
            _seconds(contender, 1, clock)  # whoever ran before has emptied the caches
            taken[name].append((_seconds(contender, runs[name], clock), _seconds(contender, 1, clock)))
    return {name: Timing(*map(statistics.median, zip(*each, strict=True))) for name, each in taken.items()}


def _runs(contender: Contender, slice_s: float, clock: Callable[[], float]) -> int:
    contender.prepare()
    _seconds(contender, 1, clock)
    return min(_MOST_RUNS, max(1, round(slice_s / max(1e-9, _seconds(contender, 1, clock)))))


def _seconds(contender: Contender, runs: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(runs):
        contender.enqueue()
    contender.wait()
    return (clock() - began) / runs
