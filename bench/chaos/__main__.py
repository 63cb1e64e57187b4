"""A real service under everything that can go wrong at once: does every client get what is right, and is nothing left?

    python -m bench.chaos --minutes 10

Sound images, whose answers are checked one by one, meet clients that leave, hostile requests, bursts, workers that die
or hang, a model that fails, files that change, and stops under load, all by a seeded schedule. The last line is JSON;
`ok` is true only if nothing at all was wrong. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import monotonic

import uvloop
from tqdm import tqdm

from bench.chaos.ledger import totals
from bench.chaos.model_folder import ModelFolder
from bench.chaos.pictures import Gallery, files_of
from bench.chaos.poisoned_model import write_poisoned_model
from bench.chaos.scenario import Report, Scenario
from bench.report import print_result, table

_SHIPPED = Path(__file__).resolve().parents[2] / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT = 8450
# What the table tells of a footprint: its name there and in the table, and the unit.
_HELD = (
    ("resident_bytes", "memory, MB", 1e6),
    ("server_bytes", "without workers, MB", 1e6),
    ("files", "open files", 1),
    ("threads", "threads", 1),
)
# A scenario without its storm; and how long a storm should be at least and at most, in seconds.
_CALM_S, _SHORTEST_STORM_S, _LONGEST_STORM_S = 16.0, 4.0, 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0 if nothing was wrong."""
    arguments = _arguments(argv)
    storms = _storms(60 * arguments.minutes)
    started = monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="aig-chaos-") as folder,
        tqdm(total=len(storms), unit="scenario") as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        reports = runner.run(_live(storms, Path(folder), arguments, progress))
    print(_table(reports))
    problems = {
        f"version {report.version}: {problem}": count
        for report in reports
        for problem, count in sorted(report.harness.problems.items())
    }
    for problem, count in problems.items():
        print(f"wrong: {problem} ({count})")
    result = {
        "benchmark": "chaos",
        "minutes": round((monotonic() - started) / 60, 2),
        "seed": arguments.seed,
        "scenarios": len(reports),
        "outcomes": dict(sorted(totals(report.harness.ledger for report in reports).items())),
        "images_right": sum(report.harness.ledger.images["ok"] for report in reports) if not problems else None,
        "workers_hurt": {
            reason: sum(report.harness.ledger.losses[reason] for report in reports) for reason in ("died", "stuck")
        },
        "memory_growth": [round(report.growth, 4) for report in reports],
        "problems": problems,
    }
    return print_result(not problems, result)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description="Everything goes wrong at once.")
    parser.add_argument("--minutes", type=float, default=2.0, help="about how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule (default: %(default)s)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="to send (default: the model's own probes)")
    parser.add_argument("--port", type=int, default=_PORT, help="of the service (default: %(default)s)")
    return parser.parse_args(argv)


def _storms(seconds: float) -> list[float]:
    """The lengths of the storms: an even number of scenarios, so that both models are served and each is swapped."""
    scenarios = 2
    while seconds / scenarios - _CALM_S > _LONGEST_STORM_S:
        scenarios += 2
    return [max(_SHORTEST_STORM_S, seconds / scenarios - _CALM_S)] * scenarios


async def _live(storms: list[float], folder: Path, arguments: argparse.Namespace, progress: tqdm) -> list[Report]:
    """One scenario after the other, with the two models in turns; the last ends by SIGKILL."""
    sources = {"1": _SHIPPED, "2": folder / "poisoned"}
    write_poisoned_model(_SHIPPED, sources["2"])
    files = files_of(_SHIPPED, arguments.images)
    galleries = {version: Gallery(source, files) for version, source in sources.items()}
    model = ModelFolder(folder / "model", sources)
    random = Random(arguments.seed)
    reports = []
    for number, storm_s in enumerate(storms):
        scratch = folder / str(number)
        scratch.mkdir()
        scenario = Scenario(model, galleries[model.version], scratch, arguments.port, random, progress.set_description)
        reports.append(await scenario.run(storm_s, killed=number == len(storms) - 1))
        progress.update()
    return reports


def _table(reports: Sequence[Report]) -> str:
    outcomes = sorted(totals(report.harness.ledger for report in reports))
    seen = [totals([report.harness.ledger]) for report in reports]
    head = ("", *(f"scenario {number + 1}, version {report.version}" for number, report in enumerate(reports)))
    rows = [(outcome, *(str(one[outcome]) for one in seen)) for outcome in outcomes]
    rows += [
        (f"workers {reason}", *(str(report.harness.ledger.losses[reason]) for report in reports))
        for reason in ("died", "stuck")
    ]
    for name, title, scale in _HELD:
        cells = [(getattr(report.before, name, 0), getattr(report.after, name, 0)) for report in reports]
        rows.append(
            (f"{title}, before and after", *(f"{one / scale:.0f}, {other / scale:.0f}" for one, other in cells))
        )
    rows.append(("problems", *(str(report.harness.problems.total()) for report in reports)))
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
