"""Does the service stay in time near and above its capacity, and at what accuracy?

    python -m bench.objective --data DATA [--model DIR]

The same service three times, in turns, each spending the whole network on an image unless it has to spend less: without
an objective, with one, and with it and budgets down to one point of accuracy. Each is loaded by random arrivals at
several multiples of the capacity that the first reaches with 16 clients. Goodput counts answers within three times the
99th percentile of a single client's answers, and the objective, the time in queue and worker, is 80% of that.

There is one worker, so that HTTP and the clients, which are not what is measured, have the other core; and it runs the
portable graph, because the compiled one of a small network is faster than they are. The images are those held out of
training, so that accuracy under load is known too.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from tqdm import tqdm

from artifact.manifest import read_manifest
from bench.load import Result, closed_loop, open_loop
from bench.load_result import REFUSED
from bench.peer_servers import SERVICE, Peer, Server, running
from bench.report import print_result, table
from models.answers import Images
from models.hold_out import split
from models.sources import open_examples

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT, _CLIENTS, _LOADS, _TIMES = 8440, 16, (0.8, 1.0, 1.5, 2.0), 3.0
_WARMUP_S, _TIMEOUT_S = 3.0, 10.0
_HEADERS = {"Content-Type": "image/png"}
_NEVER_MS = "1000000"
_WHOLE = {"AIG_WORKERS": "1", "AIG_RUNTIME": "onnx", "AIG_DEFAULT_BUDGET": "1"}
# Of the time within which answers count, how much they may take in queue and worker.
_WITHIN = 0.8
# Least goodput of the capacity without budgets, and with them; and the most accuracy that these may cost, up to a load.
_LEAST = {("objective", 0.8): 0.75, ("objective", 1.0): 0.85, ("budgets", 2.0): 1.5}
_MOST_LOST, _LOST_UP_TO = 0.01, 1.5


@dataclass(frozen=True)
class Reached:
    """What one of the three did under one load, of all rounds.

    Attributes:
        goodput: of the capacity, median.
        refused: share of the requests.
        p99_ms: 99th percentile of the answers, median.
        accuracy: of the answers.
    """

    setting: str
    load: float
    goodput: float
    refused: float
    p99_ms: float
    accuracy: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if every target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.objective", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what the model was trained on")
    parser.add_argument(
        "--model", type=Path, default=_SHIPPED, help="an artifact with budgets (default: the shipped one)"
    )
    parser.add_argument("--held-out", type=int, default=5000, help="images kept out of training (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement (default: %(default)g)")
    arguments = parser.parse_args(argv)
    files, classes = _labelled(arguments.data, arguments.model, arguments.held_out)
    results: dict[tuple[str, float], list[Result]] = defaultdict(list)
    capacities, limits_s = [], []
    for _ in tqdm(range(arguments.rounds), desc="rounds"):
        capacity, limit_s = _unloaded(arguments.model, files, arguments.seconds)
        capacities.append(capacity)
        limits_s.append(limit_s)
        for name, service in _settings(arguments.model, limit_s).items():
            with running(service, arguments.model, _PORT) as server:
                for load in _LOADS:
                    results[name, load].append(_loaded(server, files, classes, load * capacity, arguments.seconds))
                    time.sleep(1)  # for what it still has queued, and for its limit to rise again
    reached = [_reached(name, load, each, capacities, limits_s) for (name, load), each in results.items()]
    print(_table(reached, median(capacities)))
    print(f"goodput: answers within {1000 * median(limits_s):.1f} ms")
    missed = _problems(reached)
    for problem in missed:
        print("missed:", problem)
    told = {
        "capacity": median(capacities),
        "limit_ms": 1000 * median(limits_s),
        "reached": [vars(each) for each in reached],
        "missed": missed,
    }
    return print_result(not missed, {"benchmark": "objective", "model": read_manifest(arguments.model).name, **told})


def _unloaded(model: Path, files: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """The capacity in images a second, and the time in seconds within which answers count."""
    with running(_without(), model, _PORT) as server:
        alone = closed_loop(server.url, files, _HEADERS, 1, seconds, _WARMUP_S, _TIMEOUT_S)
        busy = closed_loop(server.url, files, _HEADERS, _CLIENTS, seconds, 1.0, _TIMEOUT_S)
    return busy.images_per_s, _TIMES * (alone.percentiles_ms()["p99"] or 0.0) / 1000


def _without() -> Peer:
    return replace(SERVICE, environment={**_WHOLE, "AIG_OBJECTIVE_MS": _NEVER_MS})


def _settings(model: Path, limit_s: float) -> dict[str, Peer]:
    curve = read_manifest(model).budgets
    if curve is None:
        raise SystemExit(f"error: {model} was exported without budgets")
    objective = {**_WHOLE, "AIG_OBJECTIVE_MS": f"{1000 * _WITHIN * limit_s:.2f}"}
    least = f"{curve.rows[-1].accuracy.value - _MOST_LOST:.4f}"
    return {
        "none": _without(),
        "objective": replace(SERVICE, environment=objective),
        "budgets": replace(SERVICE, environment={**objective, "AIG_LEAST_ACCURACY": least}),
    }


def _labelled(data: Path, model: Path, held_out: int) -> tuple[list[bytes], np.ndarray]:
    """A thousand of the images held out of training as PNG files, and their classes."""
    preprocessing, examples = read_manifest(model).preprocessing, open_examples(data)
    images = Images(examples, np.random.default_rng(0).permutation(split(examples, held_out)[1])[:1000], preprocessing)
    files = []
    for pixels in images.pixels(np.arange(len(images))):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    return files, images.classes


def _loaded(server: Server, files: Sequence[bytes], classes: np.ndarray, rate: float, seconds: float) -> Result:
    def right(index: int, body: bytes) -> bool:
        return bool(server.parse(body)["predictions"][0]["index"] == classes[index])

    return open_loop(server.url, files, _HEADERS, rate, seconds, 1.0, _TIMEOUT_S, seed=0, check=right, check_every=1)


def _reached(
    name: str, load: float, results: Sequence[Result], capacities: Sequence[float], limits_s: Sequence[float]
) -> Reached:
    shares = [
        result.goodput(limit_s) / capacity
        for result, limit_s, capacity in zip(results, limits_s, capacities, strict=True)
    ]
    refused = sum(result.counts.get(REFUSED, 0) for result in results)
    total = sum(sum(result.counts.values()) for result in results)
    p99_ms = median([result.percentiles_ms().get("p99") or float("nan") for result in results])
    checked, wrong = sum(result.checked for result in results), sum(result.wrong for result in results)
    return Reached(name, load, median(shares), refused / max(1, total), p99_ms, 1 - wrong / max(1, checked))


def _problems(reached: Sequence[Reached]) -> list[str]:
    by_case = {(each.setting, each.load): each for each in reached}
    missed = [
        f"goodput with {name} at {load:g} times the capacity is {by_case[name, load].goodput:.0%}, below {least:.0%}"
        for (name, load), least in _LEAST.items()
        if by_case[name, load].goodput < least
    ]
    best = max(each.accuracy for each in reached if each.setting != "budgets")
    for load in (load for load in _LOADS if load <= _LOST_UP_TO):
        case = by_case["budgets", load]
        if case.refused or best - case.accuracy > _MOST_LOST:
            missed.append(
                f"with budgets at {load:g} times the capacity {case.refused:.1%} are refused, and accuracy falls by "
                f"{best - case.accuracy:.1%}"
            )
    return missed


def _table(reached: Sequence[Reached], capacity: float) -> str:
    head = (f"of {capacity:.0f} images/s", *(f"{load:g} x: goodput (refused, p99 in ms, right)" for load in _LOADS))
    rows = [
        (
            name,
            *(
                f"{each.goodput:.0%} ({each.refused:.0%}, {each.p99_ms:.1f}, {each.accuracy:.1%})"
                for each in reached
                if each.setting == name
            ),
        )
        for name in dict.fromkeys(each.setting for each in reached)
    ]
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
