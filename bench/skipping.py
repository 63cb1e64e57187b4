"""Is skipped work saved time? One image, one thread: gated against ungated, at several shares of open gates.

    python -m bench.skipping

Skip efficiency = (MACs spent / MACs of the ungated network) / (time / time of the ungated network in ONNX Runtime).
It is 1 where every skipped multiply-accumulate is skipped time. The networks have random weights, which does not change
their speed, and gates of which any share can be opened.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifact.manifest import INT8_NAME, ONNX_NAME, Manifest, read_manifest
from artifact.preprocessing import Float32Array
from bench.charts import SkippingPoint, skipping_chart
from bench.networks import build_artifact, offset_for, random_images
from bench.report import print_result, table
from bench.timing import Times, interleaved
from bench.ungated import onnx_ungated, openvino_ungated
from service.engine.blocked_runtime import BlockedRuntime
from service.engine.errors import RuntimeUnavailable
from service.engine.int8_runtime import Int8Runtime
from service.engine.machine_cache import MachineCache
from service.engine.onnx_runtime import OnnxRuntime
from service.engine.runtime import Precision, Runtime

_ROOT = Path(__file__).resolve().parent.parent
OPEN_SHARES = (1.0, 0.8, 0.6, 0.4)
_YARDSTICK = "ONNX Runtime ungated"
# The runtime that has to meet the targets, and the one the gated networks are served with in fp32.
_JUDGED = "blocked"


@dataclass(frozen=True)
class Target:
    """What has to hold for a network: least efficiency at every point, and most time with every gate open."""

    preset: str
    efficiency: float
    time_all_open: float
    rounds: int
    seconds_each: float


TARGETS = (
    Target("convnet-aig-110-cifar10", 0.85, 1.12, rounds=15, seconds_each=0.06),
    Target("convnet-aig-50-imagenet", 0.95, 1.06, rounds=9, seconds_each=0.3),
)


@dataclass(frozen=True)
class Point:
    """One runtime at one share of open gates; efficiencies of every round.

    Attributes:
        mac_ratio: MACs spent, of those of the ungated network.
        time_ratio: against the ungated network in ONNX Runtime, the median.
        efficiency: (rounds,).
        class_efficiency: against the fastest ungated runtime of the same precision, the median.
    """

    runtime: str
    open_share: float
    mac_ratio: float
    time_ratio: float
    efficiency: npt.NDArray[np.float64]
    class_efficiency: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both networks; exit status 0 if every target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.skipping", description="Is skipped work saved time?")
    parser.add_argument("--networks", type=Path, default=_ROOT / ".bench" / "networks", help="where to keep them")
    parser.add_argument("--charts", type=Path, default=_ROOT / "docs", help="where to draw the results")
    arguments = parser.parse_args(argv)
    met, report = True, {}
    for target in TARGETS:
        points = measure(target, arguments.networks)
        failures = problems(target, points)
        met = met and not failures
        print(f"\n{target.preset}\n{_table(points)}")
        for failure in failures:
            print(f"missed: {failure}")
        report[target.preset] = {"points": [_as_json(point) for point in points], "missed": failures}
        chart = [SkippingPoint(point.runtime, point.mac_ratio, point.time_ratio) for point in points]
        path = arguments.charts / f"skipping-{target.preset.split('-')[2]}.png"
        skipping_chart(chart, path, _JUDGED, f"{target.preset}, one image, one thread")
    return print_result(met, {"benchmark": "skipping", "networks": report})


def measure(target: Target, folder: Path) -> list[Point]:
    """Time every runtime at every share of open gates, in turns."""
    gated = build_artifact(target.preset, folder / target.preset)
    plain = build_artifact(target.preset, folder / f"{target.preset}-plain", gated=False)
    manifest = read_manifest(gated)
    image = random_images(1, manifest.input_size)
    ungated: dict[str, Callable[[], object]] = {
        _YARDSTICK: onnx_ungated(plain / ONNX_NAME, image),
        "ONNX Runtime int8 ungated": onnx_ungated(plain / INT8_NAME, image),
    }
    precisions: dict[str, Precision] = {_YARDSTICK: "fp32", "ONNX Runtime int8 ungated": "int8"}
    for precision in ("fp32", "bf16"):
        try:
            ungated[f"OpenVINO {precision} ungated"] = openvino_ungated(plain / ONNX_NAME, image, precision)
            precisions[f"OpenVINO {precision} ungated"] = precision
        except RuntimeUnavailable as error:
            print(f"left out: {error}")
    runtimes = _gated_runtimes(gated, manifest)
    margins = runtimes["portable"].run(image, np.zeros(1, np.float32))[1][0]
    offsets = {share: np.array([offset_for(margins, share)], np.float32) for share in OPEN_SHARES}
    cases = dict(ungated)
    for name, runtime in runtimes.items():
        for share, offset in offsets.items():
            cases[f"{name} {share}"] = _run(runtime, image, offset)
    times = interleaved(cases, target.rounds, target.seconds_each, target.preset)
    points = []
    for name, runtime in runtimes.items():
        rivals = [times[case] for case in ungated if precisions[case] == runtime.precision]
        fastest = min(float(np.median(rival)) for rival in rivals) if rivals else float("nan")
        for share, offset in offsets.items():
            macs = _mac_ratio(manifest, runtime.run(image, offset)[1], offset)
            points.append(_point(name, share, macs, times, fastest))
    for case in ungated:
        points.append(_point(case, 1.0, 1.0, times, float("nan"), case))
    return points


def problems(target: Target, points: Sequence[Point]) -> list[str]:
    """The targets that were missed."""
    missed = []
    for point in points:
        if point.runtime != _JUDGED:
            continue
        efficiency = float(np.median(point.efficiency))
        if efficiency < target.efficiency:
            missed.append(f"efficiency {efficiency:.3f} < {target.efficiency} with {point.open_share:.0%} open")
        if point.open_share == 1 and point.time_ratio > target.time_all_open:
            missed.append(f"{point.time_ratio:.3f} > {target.time_all_open} times the ungated network, all gates open")
    return missed


def _gated_runtimes(folder: Path, manifest: Manifest) -> dict[str, Runtime]:
    runtimes: dict[str, Runtime] = {
        "portable": OnnxRuntime(folder, manifest, "cpu"),
        _JUDGED: BlockedRuntime(folder, manifest, MachineCache([], manifest)),
        "int8": Int8Runtime(folder, manifest),
    }
    for precision in ("fp32", "bf16"):
        try:
            from service.engine.openvino_runtime import OpenVinoRuntime

            runtimes[f"OpenVINO {precision}"] = OpenVinoRuntime(folder, manifest, precision)
        except RuntimeUnavailable as error:
            print(f"left out: {error}")
    return runtimes


def _run(runtime: Runtime, image: Float32Array, offset: Float32Array) -> Callable[[], object]:
    return lambda: runtime.run(image, offset)


def _mac_ratio(manifest: Manifest, margins: Float32Array, offset: Float32Array) -> float:
    return float(manifest.spent_macs(manifest.executed(margins, offset))[0]) / manifest.ungated_macs


def _point(name: str, share: float, macs: float, times: Times, fastest: float, case: str = "") -> Point:
    taken = times[case or f"{name} {share}"]
    ratios = taken / times[_YARDSTICK]
    return Point(name, share, macs, float(np.median(ratios)), macs / ratios, macs / (float(np.median(taken)) / fastest))


def _table(points: Sequence[Point]) -> str:
    head = ("runtime", "gates open", "MAC ratio", "time ratio", "efficiency", "(lowest to highest)", "in its class")
    rows = []
    for point in points:
        low, middle, high = np.quantile(point.efficiency, (0, 0.5, 1))
        in_class = "" if np.isnan(point.class_efficiency) else f"{point.class_efficiency:.3f}"
        rows.append(
            (
                point.runtime,
                f"{point.open_share:.0%}",
                f"{point.mac_ratio:.3f}",
                f"{point.time_ratio:.3f}",
                f"{middle:.3f}",
                f"({low:.3f} to {high:.3f})",
                in_class,
            )
        )
    return table(head, rows)


def _as_json(point: Point) -> dict[str, object]:
    low, middle, high = (round(float(value), 4) for value in np.quantile(point.efficiency, (0, 0.5, 1)))
    return {
        "runtime": point.runtime,
        "open_share": point.open_share,
        "mac_ratio": round(point.mac_ratio, 4),
        "time_ratio": round(point.time_ratio, 4),
        "efficiency": middle,
        "efficiency_range": [low, high],
        "class_efficiency": None if np.isnan(point.class_efficiency) else round(point.class_efficiency, 4),
    }


if __name__ == "__main__":
    sys.exit(main())
