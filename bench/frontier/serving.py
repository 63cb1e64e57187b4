"""Images a second that the service answers with each network, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from tqdm import tqdm

from bench.frontier.networks import Entry
from bench.load import closed_loop
from bench.peer_servers import SERVICE, running
from service.engine.runtimes.base import Precision

_PORT, _CLIENTS = 8470, 16
_WARMUP_S, _TIMEOUT_S = 1.0, 10.0


@dataclass(frozen=True)
class Served:
    """What the service reaches with one network.

    Attributes:
        name, at, precision: of the network; it runs with the offset that it was exported with.
        images_per_s: median of the rounds.
        ratio: of that of the yardstick, median of the rounds.
    """

    name: str
    at: str
    precision: Precision
    images_per_s: float
    ratio: float


def serve(
    entries: Sequence[Entry],
    files: Sequence[bytes],
    precisions: Sequence[Precision],
    rounds: int,
    seconds: float,
) -> list[Served]:
    """Serve each network in each precision for some seconds in every round; the very first is the yardstick.

    Args:
        entries: the networks.
        files: images that are sent.
        precisions: of the networks.
        rounds: times of each.
        seconds: of each time.
    """
    cases = [(entry, precision) for precision in precisions for entry in entries]
    reached: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for measured, (entry, precision) in zip(reached, tqdm(cases, desc="serving", leave=False), strict=True):
            service = replace(SERVICE, environment={"AIG_RUNTIME": "compiled", "AIG_PRECISION": precision})
            with running(service, entry.folder, _PORT) as server:
                headers = {"Content-Type": "application/octet-stream"}
                result = closed_loop(server.url, files, headers, _CLIENTS, seconds, _WARMUP_S, _TIMEOUT_S)
            if set(result.counts) != {200}:
                raise RuntimeError(f"not every image was classified: {result.counts}")
            measured.append(result.images_per_s)
    return [
        Served(
            entry.name,
            next(iter(entry.offsets)),
            precision,
            median(each),
            median([ours / theirs for ours, theirs in zip(each, reached[0], strict=True)]),
        )
        for (entry, precision), each in zip(cases, reached, strict=True)
    ]
