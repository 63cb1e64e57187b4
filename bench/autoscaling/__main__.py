"""How autoscalers follow a day's load, and what skipping changes: a simulation on a virtual clock.

    python -m bench.autoscaling [--seed 0] [--burst 3] [--out docs]

Nothing is timed: the same arguments give the same numbers on every machine. A replica is the service with 50 layers at
224 x 224 pixels on two cores, with the rates that `bench.capacity` derives from bench/RECORDS.md. The load is an
example, and the 30 s that a replica takes to be ready are an assumption. Three services meet the day: without gates;
with 60% of the gates open; and the same with budgets down to 40% open, which it lowers before it refuses anything. Each
is scaled by a person (enough for the day's highest second without the burst) and by the autoscalers of `kubernetes`,
`keda` and `ray_serve`, with their defaults but for what the names say. A second table has other times to be ready.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from bench.autoscaling.load import Day
from bench.autoscaling.setups import DEGRADING, FIXED, HPA, KEDA, RAY_LOW, SKIPPING, TARGET, autoscalers, services
from bench.autoscaling.simulation import Outcome, replicas_for, simulate
from bench.capacity import measured
from bench.charts import autoscaling_chart
from bench.report import markdown, print_result

START_S = 30.0
# The process alone, as measured; and where a machine has to be started too.
_OTHER_STARTS_S = (measured("50 layers, start, s"), 120.0)
_SHOWN_S, _STEP_S, _DRAWN = (-120, 720), 15, (FIXED, HPA, KEDA, RAY_LOW)

Key = tuple[float, str, str]
"""Seconds to be ready, service, autoscaler."""


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print and draw; exit status 0."""
    arguments = _arguments(argv)
    day = Day(burst=arguments.burst)
    fleets = services(START_S)
    keys = [(START_S, name, scaler) for name, replica in fleets.items() for scaler in autoscalers(replica)]
    keys += [(start_s, name, KEDA) for start_s in _OTHER_STARTS_S for name in (SKIPPING, DEGRADING)]
    found = {key: outcome_of(key, day, arguments.seed) for key in tqdm(keys, desc="days", disable=None)}
    print(by_autoscaler(found), by_start(found), sep="\n\n")
    if arguments.out:
        draw(found, day, arguments.out / "autoscaling.png")
    rows = [dict(zip(("start_s", "service", "autoscaler"), key, strict=True)) | _numbers(found[key]) for key in keys]
    return print_result(True, {"benchmark": "autoscaling", "seed": arguments.seed, "day": vars(day), "rows": rows})


def outcome_of(key: Key, day: Day, seed: int) -> Outcome:
    """A day, begun with as many replicas as it needs then; a fixed number is that for its highest second."""
    start_s, name, scaler = key
    replica = services(start_s)[name]
    rates = day.rates(burst=False)
    replicas = replicas_for(float(rates.max() if scaler == FIXED else rates[0]), replica, TARGET)
    return simulate(day, seed, replica, replicas, autoscalers(replica)[scaler]())


def by_autoscaler(found: Mapping[Key, Outcome]) -> str:
    """A row for each service and autoscaler."""
    head = ["service", "scaled by", "refused", "refused in the burst", "less compute", "enough after"]
    head += ["last refusal after", "replica-hours", "of ideal"]
    return markdown(head, *(row(key, outcome) for key, outcome in found.items() if key[0] == START_S))


def row(key: Key, outcome: Outcome) -> list[str]:
    """Of the first table."""
    _, name, scaler = key
    cells = [name, scaler, f"{outcome.refused:.2%}", f"{outcome.burst_refused:.1%}", f"{outcome.degraded:.1%}"]
    cells += [_seconds(outcome.full_after_s), _seconds(outcome.refusing_s), f"{outcome.replica_hours:,.0f}"]
    return [*cells, f"{outcome.replica_hours / outcome.ideal_replica_hours:.2f}"]


def by_start(found: Mapping[Key, Outcome]) -> str:
    """A row for each time that a replica takes to be ready."""
    head = ["ready after", "enough after", f"refused in the burst, {SKIPPING}", f"refused in the burst, {DEGRADING}"]
    rows = []
    for start_s in sorted({start_s for start_s, _, _ in found}):
        skipping, degrading = (found[start_s, name, KEDA] for name in (SKIPPING, DEGRADING))
        refused = [f"{outcome.burst_refused:.1%}" for outcome in (skipping, degrading)]
        rows.append([f"{start_s:g} s", _seconds(skipping.full_after_s), *refused])
    return markdown(head, *rows)


def draw(found: Mapping[Key, Outcome], day: Day, path: Path) -> None:
    """What the replicas of the skipping service could answer in full around the burst, and what was asked of them."""
    expected = day.rates()
    series = {"images asked": expected} | {scaler: found[START_S, SKIPPING, scaler].capacity for scaler in _DRAWN}
    shown = range(day.burst_at_s + _SHOWN_S[0], day.burst_at_s + _SHOWN_S[1], _STEP_S)
    by_minute = {
        name: {(at - day.burst_at_s) / 60: float(values[at]) for at in shown} for name, values in series.items()
    }
    conditions = f"simulated: load x{day.burst:g} for {day.burst_s // 60} minutes, replicas ready after {START_S:g} s"
    autoscaling_chart(by_minute, path, "images asked", conditions)


def _seconds(number: int | None) -> str:
    return "never" if number is None else f"{number} s"


def _numbers(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in asdict(outcome).items() if name != "capacity"}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.autoscaling", description="How do autoscalers follow a day's load?"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals (default: %(default)d)")
    parser.add_argument("--burst", type=float, default=3.0, help="times the load (default: %(default)g)")
    parser.add_argument("--out", type=Path, help="folder for the chart (default: none is drawn)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
