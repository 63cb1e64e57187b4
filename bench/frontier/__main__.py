"""Train the networks, then measure them: python -m bench.frontier --data CIFAR10

Training takes many hours of two cores; what was begun goes on where it stood. The images are those held out of
training. No label is looked at to choose which images a second network is asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from artifact.manifest import ALWAYS
from artifact.preprocessing import Float32Array, UInt8Array
from bench.charts import Series, frontier_chart
from bench.frontier.measurements import PRECISIONS, Point, measure, runs
from bench.frontier.networks import Entry, Exporter, Training, finished, train, trainings
from bench.frontier.verdict import Cost, Difference, above_plain, mean_points
from bench.images import png
from bench.report import print_result, table
from bench.serving import Served, serve
from models.answers import Images
from models.config import preset
from models.examples import Examples
from models.hold_out import split
from models.sources import open_examples

_ROOT = Path(__file__).resolve().parent.parent.parent
_YARDSTICK = "plain 20"
_PAIRS = ((14, 26), (14, 38), (20, 38))
# Of the images, for which the second network is asked; the first share is what the artifact does by itself.
_SHARES = (0.2, 0.05, 0.1, 0.15, 0.3, 0.4, 0.5, 0.75)
_SERVED = (14, 20, 26, 38)
_JUDGED = "14 then 26"
_LEAST_ABOVE, _OWN_COSTS = 0.5, (0.4, 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and measure; exit status 0 if the cascade lies above the plain networks."""
    arguments = _arguments(argv)
    wanted = trainings(arguments.epochs)
    if not arguments.trained_only:
        train(arguments.data, arguments.runs, arguments.epochs)
    trained = [training for training in wanted if finished(training, arguments.runs)]
    examples = open_examples(arguments.data)
    pixels, classes = _held_out(examples)
    images = preset("convnet-aig-20-cifar10").preprocessing.normalise(pixels)
    entries, variants = _entries(trained, Exporter(examples, arguments.runs), images)
    opened = runs(entries, images)
    points = measure(opened, classes, lambda run: run.entry.name == _YARDSTICK, arguments.rounds)
    means = mean_points(points)
    served = []
    if arguments.rounds:
        files = [png(each) for each in pixels[::25]]
        offers = [offer for entry in _served(entries) + variants for offer in entry.offers]
        served = serve(offers, files, PRECISIONS, arguments.rounds, arguments.seconds)
    print(_table(means), _served_table(served), sep="\n\n")
    _draw(means, served, arguments.charts, arguments.epochs)
    differences = {name: above_plain(_of("fp32", means), _JUDGED, cost) for name, cost in _COSTS.items()}
    missed = _missed(differences["million MACs"], means)
    for problem in missed:
        print("missed:", problem)
    told = {name: [asdict(each) for each in found] for name, found in differences.items()}
    result = {"points": [asdict(point) for point in points], "served": [asdict(each) for each in served]}
    return print_result(not missed, {"benchmark": "frontier", "epochs": arguments.epochs, **result, "above": told})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.frontier", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10's batches, or class folders of it")
    parser.add_argument(
        "--runs", type=Path, default=_ROOT / ".bench" / "frontier", help="what is trained (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=60, help="times each image is seen (default: %(default)s)")
    parser.add_argument("--trained-only", action="store_true", help="measure what is trained (default: train the rest)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="times of each; 0 measures no time (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of serving a network (default: %(default)g)")
    parser.add_argument("--charts", type=Path, default=_ROOT / "docs", help="folder of the pictures (default: docs)")
    return parser.parse_args(argv)


def _held_out(examples: Examples) -> tuple[UInt8Array, np.ndarray]:
    """Pixels and classes of the images held out of training, in an order that mixes the classes."""
    _, indices = split(examples, None)
    images = Images(
        examples, np.random.default_rng(0).permutation(indices), preset("convnet-aig-20-cifar10").preprocessing
    )
    return images.pixels(np.arange(len(images))), images.classes


def _entries(trained: Sequence[Training], exporter: Exporter, images: Float32Array) -> tuple[list[Entry], list[Entry]]:
    """All networks: the single ones, and of each seed the cascades of those that are trained.

    Returns:
        those to measure, and of the judged cascade others to serve, since the service runs what an artifact says.
    """
    entries, logits, variants = [], {}, []
    for training in trained:
        if training.name.startswith("plain") and "half" in training.name:
            continue  # what a gated network started from has seen fewer images
        entries.append(exporter.entry(training))
        if not training.gated:
            logits[training.depth, training.seed] = training
    cascades = []
    for seed in sorted({seed for _, seed in logits}):
        for pair in _PAIRS:
            members = [logits[depth, seed] for depth in pair if (depth, seed) in logits]
            if len(members) == len(pair):
                said = [exporter.logits(member, images) for member in members]
                cascade = exporter.cascade(members, said, _SHARES)
                cascades.append(replace(cascade, offsets=cascade.offsets | {"100%": ALWAYS}))
                if seed == 0 and pair == _PAIRS[0]:
                    variants = [exporter.cascade(members, said, [share]) for share in (0.1, 0.3)]
    return entries + cascades, variants


def _served(entries: Sequence[Entry]) -> list[Entry]:
    single = [entry for entry in entries if entry.seed == 0 and entry.kind != "cascade" and entry.depths[0] in _SERVED]
    cascades = [entry for entry in entries if entry.seed == 0 and entry.name == _JUDGED]
    return single + cascades


def _of(precision: str, points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.precision == precision]


_COSTS: dict[str, Cost] = {"million MACs": lambda point: point.macs, "time": lambda point: point.time_ratio}


def _missed(differences: Sequence[Difference], means: Sequence[Point]) -> list[str]:
    """Where the judged cascade is not above the plain networks, as far as it costs a part of its own."""
    own = max((point.macs for point in _of("fp32", means) if point.name == _JUDGED), default=float("nan"))
    judged = [each for each in differences if _OWN_COSTS[0] * own <= each.cost <= _OWN_COSTS[1] * own]
    if not judged:
        return [f"there is no {_JUDGED} to judge"]
    missed = [f"{each.points:+.2f} points at {each.at}" for each in judged if each.points <= 0]
    if (most := max(each.points for each in judged)) < _LEAST_ABOVE:
        missed.append(f"at most {most:+.2f} points above the plain networks")
    return missed


def _draw(means: Sequence[Point], served: Sequence[Served], charts: Path, epochs: int) -> None:
    conditions = f"CIFAR-10, 5,000 images held out of training, {epochs} epochs, means of the seeds"
    rates = {(each.name, each.at, each.precision): each.images_per_s for each in served}
    costs: dict[str, tuple[Cost, str]] = {
        "macs": (lambda point: point.macs, "million MACs an image"),
        "time": (lambda point: point.time_ratio, f"time of an image on one core, {_YARDSTICK} layers in fp32 = 1"),
        "served": (
            lambda point: rates.get((point.name, point.at, point.precision), float("nan")),
            "images/s over HTTP, more to the right",
        ),
    }
    for precision in PRECISIONS:
        for name, (cost, label) in costs.items():
            series: dict[str, dict[float, float | None]] = {}
            for point in _of(precision, means):
                if np.isfinite(cost(point)):
                    network = "plain networks" if point.kind == "plain" else point.name
                    series.setdefault(network, {})[cost(point)] = point.accuracy
            if series:  # else it was not measured
                path = charts / f"frontier-{name}-{precision}.png"
                frontier_chart(_sorted(series), path, _JUDGED, f"{label}, {precision}", conditions)


def _sorted(series: dict[str, dict[float, float | None]]) -> Series:
    return {name: dict(sorted(values.items())) for name, values in series.items()}


def _table(means: Sequence[Point]) -> str:
    head = ("network", "at", "precision", "seeds", "million MACs", f"time, {_YARDSTICK} in fp32 = 1", "accuracy")
    rows = [
        (
            point.name,
            point.at,
            point.precision,
            str(point.seed),
            f"{point.macs:.1f}",
            "" if np.isnan(point.time_ratio) else f"{point.time_ratio:.3f}",
            f"{point.accuracy:.2%}",
        )
        for point in sorted(means, key=lambda point: (point.precision, point.kind, point.name, point.macs))
    ]
    return table(head, rows)


def _served_table(served: Sequence[Served]) -> str:
    head = ("served", "at", "precision", "images/s", "ratio")
    rows = [(each.name, each.at, each.precision, f"{each.images_per_s:.0f}", f"{each.ratio:.2f}") for each in served]
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
