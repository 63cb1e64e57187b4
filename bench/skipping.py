"""Is skipped work saved time? One image, one thread: gated against ungated, at several shares of open gates.

    python -m bench.skipping

Skip efficiency = (MACs spent / MACs of the ungated network) / (time / time of the ungated network in ONNX Runtime).
It is 1 where every skipped multiply-accumulate is skipped time. Every time is taken between two of that yardstick, see
`bench.timing`. The networks have random weights, which does not change their speed, and gates of which any share can
be opened. The network that ships is measured besides, beside a random one of its shape, with its own gates at budgets:
there an image's path is decided by its own pixels, while it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifact.manifest import ONNX_NAME, Manifest, read_manifest
from artifact.preprocessing import Float32Array
from artifact.probes import read_probes
from bench.charts import SkippingPoint, skipping_chart
from bench.contenders import JUDGED, OURS, PRECISIONS, YARDSTICK, compiled_runtimes, gated_runtimes, rivals
from bench.networks import build_artifact, offset_for, random_images
from bench.report import print_result, table
from bench.timing import paired
from bench.ungated import onnx_ungated
from service.engine.runtimes.base import Precision, Runtime

_ROOT = Path(__file__).resolve().parent.parent
OPEN_SHARES = (1.0, 0.8, 0.6, 0.4)
_SLICE_S = 0.04
# Of what its share of the MACs would allow, how much a gated network must reach against the fastest ungated one.
_LEAST_IN_CLASS = 0.9
# The compiled network and its rivals are measured this many times as often as the others.
_OFTEN = 4


@dataclass(frozen=True)
class Target:
    """What has to hold for a network.

    Attributes:
        preset: of the network with random weights.
        efficiency: least, at every point.
        time_all_open: most time with every gate open, of the network without gates.
        rounds: measurements of the compiled network.
        trained: an artifact of the same shape, to measure at its budgets.
    """

    preset: str
    efficiency: float
    time_all_open: float
    rounds: int
    trained: Path | None = None


TARGETS = (
    Target("convnet-aig-110-cifar10", 0.85, 1.12, rounds=100),
    Target("convnet-aig-50-imagenet", 0.95, 1.06, rounds=32),
    Target("convnet-aig-38-cifar10", 0.85, 1.12, 60, _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"),
)


@dataclass(frozen=True)
class Point:
    """One runtime at one share of open gates.

    Attributes:
        precision: of its convolutions.
        open_share: of the gates; of a trained network its budget.
        mac_ratio: MACs spent, of those of the ungated network.
        time_ratios: against the ungated network in ONNX Runtime, (rounds,).
        rival: that ratio of the fastest ungated runtime of the same precision; NaN without one.
    """

    runtime: str
    precision: Precision
    open_share: float
    mac_ratio: float
    time_ratios: npt.NDArray[np.float64]
    rival: float = float("nan")

    @property
    def time_ratio(self) -> float:
        """The median."""
        return float(np.median(self.time_ratios))

    @property
    def efficiency(self) -> tuple[float, float, float]:
        """Its quartiles."""
        low, middle, high = np.quantile(self.mac_ratio / self.time_ratios, (0.25, 0.5, 0.75)).tolist()
        return low, middle, high

    @property
    def class_efficiency(self) -> float:
        """Against the fastest ungated runtime of the same precision; NaN without one."""
        return self.mac_ratio / (self.time_ratio / self.rival)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the networks; exit status 0 if every target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.skipping", description="Is skipped work saved time?")
    parser.add_argument(
        "--networks",
        type=Path,
        default=_ROOT / ".bench" / "networks",
        help="where to keep them (default: .bench/networks)",
    )
    parser.add_argument(
        "--charts", type=Path, default=_ROOT / "docs", help="folder of the results' pictures (default: docs)"
    )
    rounds = " and ".join(f"{target.rounds}" for target in TARGETS)
    parser.add_argument("--rounds", type=int, help=f"of the compiled network (default: {rounds}, by network)")
    presets = [target.preset for target in TARGETS]
    parser.add_argument("--presets", nargs="+", default=presets, choices=presets, help="to measure (default: all)")
    arguments = parser.parse_args(argv)
    met, report = True, {}
    for target in [each for each in TARGETS if each.preset in arguments.presets]:
        points = measure(target, arguments.networks, arguments.rounds or target.rounds)
        if target.trained is not None:
            points += measure_trained(target, arguments.networks, arguments.rounds or target.rounds)
        failures = problems(target, points)
        met = met and not failures
        print(f"\n{target.preset}\n{_table(points)}")
        for failure in failures:
            print(f"missed: {failure}")
        report[target.preset] = {"points": [_as_json(point) for point in points], "missed": failures}
        # The ungated twins of the compiled network would lie upon it.
        drawn = [point for point in points if not (point.runtime.startswith(OURS) and "ungated" in point.runtime)]
        chart = [SkippingPoint(point.runtime, point.mac_ratio, point.time_ratio) for point in drawn]
        path = arguments.charts / f"skipping-{target.preset.split('-')[2]}.png"
        skipping_chart(chart, path, OURS, f"{target.preset}, one image, one thread")
    return print_result(met, {"benchmark": "skipping", "networks": report})


def measure(target: Target, folder: Path, rounds: int) -> list[Point]:
    """Time every runtime at every share of open gates, and its ungated rivals."""
    gated = build_artifact(target.preset, folder / target.preset)
    plain = build_artifact(target.preset, folder / f"{target.preset}-plain", gated=False)
    manifest = read_manifest(gated)
    image = random_images(1, manifest.input_size)
    ungated, runtimes = rivals(plain, image), gated_runtimes(gated, manifest)
    margins = runtimes["portable"].run(image, np.zeros(1, np.float32))[1][0]
    offsets = {share: np.array([offset_for(margins, share)], np.float32) for share in OPEN_SHARES}
    often = {name: run for name, (_, run) in ungated.items()}
    seldom: dict[str, Callable[[], object]] = {}
    for name, runtime in runtimes.items():
        for share, offset in offsets.items():
            (often if name.startswith(OURS) else seldom)[f"{name} {share}"] = _run(runtime, image, offset)
    base = often[YARDSTICK]  # which is among the cases too: how far its ratio is from 1 tells the noise
    ratios = paired(base, often, rounds, _SLICE_S, target.preset)
    ratios |= paired(base, seldom, max(1, rounds // _OFTEN), _SLICE_S, target.preset)
    medians = {name: float(np.median(ratios[name])) for name in ungated} | {YARDSTICK: 1.0}
    points = []
    for name, runtime in runtimes.items():
        in_its_class = [medians[rival] for rival, (precision, _) in ungated.items() if precision == runtime.precision]
        fastest = min(in_its_class, default=float("nan"))
        for share, offset in offsets.items():
            macs = _mac_ratio(manifest, runtime.run(image, offset)[1], offset)
            points.append(Point(name, runtime.precision, share, macs, ratios[f"{name} {share}"], fastest))
    return points + [Point(name, precision, 1.0, 1.0, ratios[name]) for name, (precision, _) in ungated.items()]


def measure_trained(target: Target, folder: Path, rounds: int) -> list[Point]:
    """Time the compiled runtimes of a trained network at its budgets, one after the other of its probes' images.

    Raises:
        ValueError: it has no budgets.
    """
    assert target.trained is not None
    manifest = read_manifest(target.trained)
    if manifest.budgets is None:
        raise ValueError(f"{target.trained} was exported without budgets")
    plain = build_artifact(target.preset, folder / f"{target.preset}-plain", gated=False)
    images = [image[None] for image in read_probes(target.trained, manifest).images]
    ungated = [onnx_ungated(plain / ONNX_NAME, images[0])] * len(images)
    cases: dict[str, Callable[[], object]] = {}
    spent: dict[str, tuple[str, Precision, float, float]] = {}
    for name, runtime in compiled_runtimes(target.trained, manifest).items():
        for share in OPEN_SHARES:
            row = manifest.budgets.within(share)
            if row is None:
                continue  # the network cannot spend so little
            offset = np.array([row.gate_offset], np.float32)
            cases[f"{name} {share}"] = _each([_run(runtime, image, offset) for image in images])
            macs = [_mac_ratio(manifest, runtime.run(image, offset)[1], offset) for image in images]
            spent[f"{name} {share}"] = f"trained, {name}", runtime.precision, share, float(np.mean(macs))
    ratios = paired(_each(ungated), cases, rounds, _SLICE_S, f"{target.preset} as it ships")
    return [Point(*each, ratios[case]) for case, each in spent.items()]


def problems(target: Target, points: Sequence[Point]) -> list[str]:
    """The targets that were missed."""
    missed = []
    for point in points:
        if point.runtime != JUDGED:
            continue
        _, efficiency, _ = point.efficiency
        if efficiency < target.efficiency:
            missed.append(f"efficiency {efficiency:.3f} < {target.efficiency} with {point.open_share:.0%} open")
        if point.open_share == 1 and point.time_ratio > target.time_all_open:
            missed.append(f"{point.time_ratio:.3f} > {target.time_all_open} times the ungated network, all gates open")
    return missed + _missed_in_class(points)


def _missed_in_class(points: Sequence[Point]) -> list[str]:
    """Where the fastest gated runtime of a precision, or a higher one, is not ahead of the fastest ungated one."""
    missed = []
    gated = [point for point in points if point.rival > 0]
    for position, precision in enumerate(PRECISIONS):
        rivals = {point.rival for point in gated if point.precision == precision}
        usable = [point for point in gated if point.precision in PRECISIONS[: position + 1]] if rivals else []
        for share in sorted({point.open_share for point in usable}, reverse=True):
            best = min((point for point in usable if point.open_share == share), key=lambda point: point.time_ratio)
            reached = replace(best, rival=min(rivals)).class_efficiency
            if reached < _LEAST_IN_CLASS:
                missed.append(
                    f"{reached:.3f} < {_LEAST_IN_CLASS} of what the MACs allow against the fastest ungated in "
                    f"{precision}, with {share:.0%} open ({best.runtime})"
                )
    return missed


def _run(runtime: Runtime, image: Float32Array, offset: Float32Array) -> Callable[[], object]:
    return lambda: runtime.run(image, offset)


def _each(runs: Sequence[Callable[[], object]]) -> Callable[[], object]:
    return lambda: [run() for run in runs]


def _mac_ratio(manifest: Manifest, margins: Float32Array, offset: Float32Array) -> float:
    return float(manifest.spent_macs(manifest.executed(margins, offset))[0]) / manifest.ungated_macs


def _table(points: Sequence[Point]) -> str:
    head = ("runtime", "gates open", "MAC ratio", "time ratio", "efficiency", "(quartiles)", "in its class", "rounds")
    rows = []
    for point in points:
        low, middle, high = point.efficiency
        rows.append(
            (
                point.runtime,
                f"{point.open_share:.0%}",
                f"{point.mac_ratio:.3f}",
                f"{point.time_ratio:.3f}",
                f"{middle:.3f}",
                f"({low:.3f} to {high:.3f})",
                "" if np.isnan(point.class_efficiency) else f"{point.class_efficiency:.3f}",
                str(len(point.time_ratios)),
            )
        )
    return table(head, rows)


def _as_json(point: Point) -> dict[str, object]:
    low, middle, high = point.efficiency
    return {
        "runtime": point.runtime,
        "open_share": point.open_share,
        "mac_ratio": round(point.mac_ratio, 4),
        "time_ratio": round(point.time_ratio, 4),
        "efficiency": round(middle, 4),
        "efficiency_quartiles": [round(low, 4), round(high, 4)],
        "class_efficiency": None if np.isnan(point.class_efficiency) else round(point.class_efficiency, 4),
        "rounds": len(point.time_ratios),
    }


if __name__ == "__main__":
    sys.exit(main())
