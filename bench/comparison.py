"""What the servers did under every load, over all rounds: tables, charts, and whether the targets hold."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.charts import goodput_chart, latency_chart, throughput_chart
from bench.load_result import OK, REFUSED, Result
from bench.report import table

CLIENTS = (1, 4, 16, 64)
LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
# Best of seven servers measured before this project began, on two cores, with the same 110-layer network.
ENVELOPE = {1: 225.0, 4: 440.0, 16: 643.0, 64: 694.0}
_GOOD = 3  # times the unloaded p99
_LEAST_GOODPUT = 0.95
_MOST_REFUSAL_MS = 50.0


@dataclass(frozen=True)
class Case:
    """One server under one load: so many clients, or so many times its capacity."""

    server: str
    kind: Literal["clients", "load"]
    amount: float


class Comparison:
    """Collects results and judges them.

    Args:
        ours: name of this project's server.
    """

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._results: dict[Case, list[Result]] = defaultdict(list)
        self._memory: dict[str, int] = {}

    def add(self, case: Case, result: Result) -> None:
        """Note one result."""
        self._results[case].append(result)

    def note_memory(self, server: str, resident_bytes: int) -> None:
        """Note a server's memory; the largest counts."""
        self._memory[server] = max(resident_bytes, self._memory.get(server, 0))

    @property
    def servers(self) -> list[str]:
        """All servers with results, in the order they were first measured."""
        return list(dict.fromkeys(case.server for case in self._results))

    def capacity(self, server: str) -> float:
        """Most images a second a server reached with any number of clients, the median of the rounds so far."""
        return max(self.images_per_s(Case(server, "clients", clients)) for clients in CLIENTS)

    def images_per_s(self, case: Case) -> float:
        """The median over the rounds."""
        return self._median(case, lambda result: result.images_per_s)

    def p99_ms(self, case: Case) -> float:
        """The median over the rounds; infinite where nothing was answered."""
        return self._percentile_ms(case, "p99")

    def goodput(self, case: Case) -> float:
        """Images a second answered within three times the server's unloaded p99."""
        limit_s = _GOOD * self.p99_ms(Case(case.server, "clients", 1)) / 1000
        return self._median(case, lambda result: result.goodput(limit_s))

    def problems(self) -> list[str]:
        """The targets that were missed."""
        ours = self._ours
        missed = [f"{case.server} gave a wrong answer" for case, results in self._results.items() if _wrong(results)]
        for clients in CLIENTS:
            mine = Case(ours, "clients", clients)
            if self.images_per_s(mine) <= ENVELOPE[clients]:
                missed.append(f"{self.images_per_s(mine):.0f} images/s with {clients} clients, under the envelope")
            for peer in self.servers:
                theirs = Case(peer, "clients", clients)
                if peer != ours and self.images_per_s(theirs) >= self.images_per_s(mine):
                    missed.append(f"{peer} classifies more images with {clients} clients")
                if peer != ours and self.p99_ms(theirs) <= self.p99_ms(mine):
                    missed.append(f"{peer} has a lower p99 with {clients} clients")
        return missed + self._overload_problems()

    def tables(self) -> str:
        """Throughput with latencies, then what happens at multiples of the capacity."""
        closed = [
            (
                server,
                f"{self._memory.get(server, 0) / 1e6:.0f}",
                *(
                    f"{self.images_per_s(case):.0f} ({self._percentile_ms(case, 'p50'):.1f}, {self.p99_ms(case):.0f})"
                    for case in (Case(server, "clients", clients) for clients in CLIENTS)
                ),
            )
            for server in self.servers
        ]
        opened = [
            (server, f"{self.capacity(server):.0f}", *(self._overload_cell(server, load) for load in LOADS))
            for server in self.servers
        ]
        head = ("images/s (p50, p99 in ms)", "MB", *(f"{clients} clients" for clients in CLIENTS))
        head_open = ("goodput of capacity (p99 in ms; refused)", "capacity", *(f"{load:g} x" for load in LOADS))
        return f"{table(head, closed)}\n\n{table(head_open, opened)}"

    def draw(self, folder: Path, conditions: str) -> None:
        """Draw the pictures of the documentation."""
        throughput = self._series("clients", CLIENTS, self.images_per_s)
        latency = self._series("load", LOADS, self.p99_ms)
        goodput = self._series(
            "load",
            LOADS,
            lambda case: (
                self.goodput(case) / max(1, *(self.goodput(Case(case.server, "load", load)) for load in LOADS))
            ),
        )
        throughput_chart(throughput, folder / "throughput.png", self._ours, conditions)
        latency_chart(latency, folder / "latency.png", self._ours, conditions)
        goodput_chart(goodput, folder / "goodput.png", self._ours, conditions)

    def as_json(self) -> dict[str, object]:
        """Every figure."""
        return {
            "memory_mb": {server: round(memory / 1e6) for server, memory in self._memory.items()},
            "cases": [
                {
                    "server": case.server,
                    case.kind: case.amount,
                    "images_per_s": round(self.images_per_s(case), 1),
                    **{name: _finite(self._percentile_ms(case, name)) for name in ("p50", "p95", "p99", "p99.9")},
                    "goodput": round(self.goodput(case), 1),
                    "refused": sum(result.counts.get(REFUSED, 0) for result in results),
                    "failed": sum(_failures(result) for result in results),
                    "rounds": len(results),
                }
                for case, results in self._results.items()
            ],
        }

    def _overload_problems(self) -> list[str]:
        """What is wrong at three times the capacity."""
        missed = []
        peak = max(self.goodput(Case(self._ours, "load", load)) for load in LOADS)
        worst = Case(self._ours, "load", LOADS[-1])
        if self.goodput(worst) < _LEAST_GOODPUT * peak:
            missed.append(f"goodput at {worst.amount:g} x is {self.goodput(worst) / peak:.0%} of its peak")
        for result in self._results[worst]:
            refusal_ms = result.percentiles_ms(REFUSED)["p99"]
            if result.refusals_with_retry_after != 1:
                missed.append("a refusal does not say when to come back, or nothing was refused")
            elif refusal_ms is not None and refusal_ms > _MOST_REFUSAL_MS:
                missed.append(f"refusals take {refusal_ms:.0f} ms at the 99th percentile")
        return missed

    def _overload_cell(self, server: str, load: float) -> str:
        case = Case(server, "load", load)
        results = self._results[case]
        refused = sum(result.counts.get(REFUSED, 0) for result in results)
        total = sum(sum(result.counts.values()) for result in results) or 1
        share = self.goodput(case) / self.capacity(server)
        return f"{share:.0%} ({self.p99_ms(case):.0f}; {refused / total:.0%})"

    def _series(
        self, kind: Literal["clients", "load"], amounts: Iterable[float], figure: Callable[[Case], float]
    ) -> dict[str, dict[float, float | None]]:
        return {server: {amount: figure(Case(server, kind, amount)) for amount in amounts} for server in self.servers}

    def _percentile_ms(self, case: Case, name: str) -> float:
        def of(result: Result) -> float:
            value = result.percentiles_ms()[name]
            return float("inf") if value is None else value

        return self._median(case, of)

    def _median(self, case: Case, figure: Callable[[Result], float]) -> float:
        results = self._results.get(case, [])
        return statistics.median(figure(result) for result in results) if results else 0.0


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _failures(result: Result) -> int:
    return sum(count for status, count in result.counts.items() if status not in (OK, REFUSED))


def _wrong(results: Iterable[Result]) -> bool:
    return any(result.wrong for result in results)
