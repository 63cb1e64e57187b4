"""Images a second that the service answers with each of several artifacts, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tqdm import tqdm

from bench.load import closed_loop
from bench.peer_servers import SERVICE, running
from service.engine.runtimes.base import Precision

_PORT, _CLIENTS = 8470, 16
_WARMUP_S, _TIMEOUT_S = 1.0, 10.0


@dataclass(frozen=True)
class Offer:
    """An artifact as it is to be served.

    Attributes:
        name: of the network.
        at: what it is run for, such as a budget, in words.
        folder: of the artifact.
        budget: share of the multiply-accumulates that the service spends on an image, mean; None for as it was trained.
    """

    name: str
    at: str
    folder: Path
    budget: float | None = None

    def environment(self, precision: Precision) -> dict[str, str]:
        """Settings of the service."""
        budget = {} if self.budget is None else {"AIG_DEFAULT_BUDGET": str(self.budget)}
        return {"AIG_RUNTIME": "compiled", "AIG_PRECISION": precision, **budget}


@dataclass(frozen=True)
class Served:
    """What the service reaches with one of them.

    Attributes:
        name, at, precision: of the network.
        images_per_s: median of the rounds.
        ratio: of that of the yardstick, median of the rounds.
    """

    name: str
    at: str
    precision: Precision
    images_per_s: float
    ratio: float


def serve(
    offers: Sequence[Offer],
    files: Sequence[bytes],
    precisions: Sequence[Precision],
    rounds: int,
    seconds: float,
) -> list[Served]:
    """Serve each in each precision for some seconds in every round; the very first is the yardstick.

    Args:
        offers: what to serve.
        files: images that are sent.
        precisions: of the networks.
        rounds: times of each.
        seconds: of each time.
    """
    cases = [(offer, precision) for precision in precisions for offer in offers]
    reached: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for measured, (offer, precision) in zip(reached, tqdm(cases, desc="serving", leave=False), strict=True):
            service = replace(SERVICE, environment=offer.environment(precision))
            with running(service, offer.folder, _PORT) as server:
                headers = {"Content-Type": "application/octet-stream"}
                result = closed_loop(server.url, files, headers, _CLIENTS, seconds, _WARMUP_S, _TIMEOUT_S)
            if set(result.counts) != {200}:
                raise RuntimeError(f"not every image was classified: {result.counts}")
            measured.append(result.images_per_s)
    return [
        Served(
            offer.name,
            offer.at,
            precision,
            median(each),
            median([ours / theirs for ours, theirs in zip(each, reached[0], strict=True)]),
        )
        for (offer, precision), each in zip(cases, reached, strict=True)
    ]
