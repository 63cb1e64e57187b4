"""Whether the cascade lies above the plain networks: at the same MACs, and in the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.frontier.measurements import Point

Cost = Callable[[Point], float]


@dataclass(frozen=True)
class Difference:
    """How far one point lies above the line through the plain networks.

    Attributes:
        at: of the point.
        cost: in MACs or time.
        points: of accuracy, in percent.
    """

    at: str
    cost: float
    points: float


def mean_points(points: Sequence[Point]) -> list[Point]:
    """Each network at each offset and precision with the means over its seeds; the time is that of the first."""
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.name, point.at, point.precision), []).append(point)
    return [
        Point(
            kind=each[0].kind,
            name=each[0].name,
            seed=len(each),
            at=each[0].at,
            precision=each[0].precision,
            accuracy=float(np.mean([point.accuracy for point in each])),
            macs=float(np.mean([point.macs for point in each])),
            time_ratio=each[0].time_ratio,
        )
        for each in groups.values()
    ]


def above_plain(points: Sequence[Point], name: str, cost: Cost) -> list[Difference]:
    """How far a network lies above the plain ones, at each of its offsets that costs what one of these does.

    Between two plain networks the line is straight over the logarithm of the cost, which favours them where more layers
    gain less and less.

    Args:
        points: of one precision.
        cost: of a point.
    """
    plain = sorted((point for point in points if point.kind == "plain"), key=cost)
    costs, accuracies = np.log([cost(point) for point in plain]), [point.accuracy for point in plain]
    differences = []
    for point in points:
        if point.name == name and np.isfinite(cost(point)) and costs[0] <= np.log(cost(point)) <= costs[-1]:
            line = float(np.interp(np.log(cost(point)), costs, np.maximum.accumulate(accuracies)))
            differences.append(Difference(point.at, cost(point), 100 * (point.accuracy - line)))
    return differences
