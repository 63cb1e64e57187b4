"""Does a network that skips keep up with the plain one on a user's own photographs, and how much sooner does it answer?

    python -m bench.own_images --data FLOWERS --from RESNET50

A pretrained network is tuned on a folder of photographs without gates, and what came of it, for as many epochs more,
with gates, by the trainer's own recipes. Some hours of two cores; what was begun goes on where it stood. Both networks
are judged on the images held out, the same for every seed, and served in turns to the same clients on the same cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from artifact.manifest import MANIFEST_NAME
from bench.report import print_result, table
from bench.serving import Offer, Served, serve
from models.checkpoint import load
from models.data import Dataset, load_pixels
from models.evaluation import Evaluation, evaluate
from models.hold_out import held_out_indices
from models.intervals import Estimate, mean
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from models.trainer import CHECKPOINT_NAME
from service.engine.runtimes.base import Precision

_ROOT = Path(__file__).resolve().parent.parent
_KINDS = _PLAIN, _GATED = "plain", "gated"
_FILES_SENT = 100
# Most points of accuracy that skipping may cost, and least images a second by the plain network's.
_MOST_LOST, _LEAST_RATIO = 0.5, 1.4
# How much less of the compute is trained for: images that were held out spend about a point more.
_BELOW = 0.02


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge and serve; exit status 0 if every target holds."""
    arguments = _arguments(argv)
    if not arguments.trained_only:
        _train(arguments)
    judged = {kind: [_judged(arguments, kind, seed) for seed in arguments.seeds] for kind in _KINDS}
    lost = _lost(judged[_PLAIN], judged[_GATED])
    mac_share = float(np.mean([each.mac_share.mean() for each in judged[_GATED]]))
    print(_table(arguments.seeds, judged))
    low, value, high = (100 * each for each in (lost.low, lost.value, lost.high))
    print(f"gates cost {value:.2f} points of accuracy ({low:.2f} to {high:.2f}) at {mac_share:.1%} of the MACs")
    served = [each for precision in arguments.precisions for each in _served(arguments, precision)]
    print(table(("served", "precision", "images/s", "ratio"), [_row(each) for each in served]))
    ratios = [each.ratio for each in served if each.name == _GATED]
    ok = (
        100 * lost.value <= _MOST_LOST
        and mac_share <= arguments.budget
        and min(ratios, default=_LEAST_RATIO) >= _LEAST_RATIO
    )
    accuracies = {kind: [each.accuracy for each in found] for kind, found in judged.items()}
    told = {"accuracies": accuracies, "lost": lost._asdict(), "mac_share": mac_share}
    return print_result(ok, {"benchmark": "own_images", **told, "served": [asdict(each) for each in served]})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.own_images", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="class folders of photographs")
    parser.add_argument("--from", dest="source", type=Path, required=True, help="pretrained weights")
    parser.add_argument("--preset", default="convnet-aig-50-imagenet", help="network (default: %(default)s)")
    parser.add_argument("--image-size", default="160", help="side of the input in pixels (default: %(default)s)")
    parser.add_argument(
        "--budget",
        type=float,
        default=0.65,
        help="of the network with gates, a share of the MACs (default: %(default)s)",
    )
    parser.add_argument("--options", default="", help="more of the trainer, such as --epochs 3 (default: none)")
    parser.add_argument(
        "--runs", type=Path, default=_ROOT / ".bench" / "own-images", help="what is trained (default: %(default)s)"
    )
    parser.add_argument("--trained-only", action="store_true", help="measure what is trained (default: train the rest)")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="of the runs (default: 0 1 2)")
    parser.add_argument(
        "--precisions",
        nargs="*",
        default=("fp32", "bf16"),
        choices=get_args(Precision),
        help="to serve in (default: fp32 bf16)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="times of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of serving a network (default: %(default)g)")
    return parser.parse_args(argv)


def _folder(arguments: argparse.Namespace, kind: str, seed: int) -> Path:
    runs: Path = arguments.runs
    return runs / f"{kind}-{seed}"


def _train(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet.

    Raises:
        subprocess.CalledProcessError: a run failed; it has said why.
    """
    for seed in tqdm(arguments.seeds, desc="training", unit="seed"):
        plain = str(_folder(arguments, _PLAIN, seed) / CHECKPOINT_NAME)
        gates = ["--from", plain, "--teacher", plain, "--budgets", f"{arguments.budget - _BELOW:g}"]
        for kind, more in ((_PLAIN, ["--from", str(arguments.source), "--plain"]), (_GATED, gates)):
            told = ["--preset", arguments.preset, "--data", str(arguments.data)]
            told += ["--image-size", arguments.image_size, "--out", str(_folder(arguments, kind, seed))]
            command = [sys.executable, "-m", "models.train", *told, "--seed", str(seed), *more]
            subprocess.run([*command, *arguments.options.split()], check=True)


def _judged(arguments: argparse.Namespace, kind: str, seed: int) -> Evaluation:
    """What a trained network does on the images that its training held out."""
    path = _folder(arguments, kind, seed) / CHECKPOINT_NAME
    checkpoint, examples = load(path), open_examples(arguments.data)
    network = checkpoint.network()
    assert isinstance(network, AdaptiveResNet)
    preprocessing = network.config.preprocessing
    held_out = held_out_indices(checkpoint.held_out, None, examples, str(path))
    return evaluate(network, Dataset(examples, held_out, preprocessing, load_pixels(examples, preprocessing)[1]))


def _lost(plain: Sequence[Evaluation], gated: Sequence[Evaluation]) -> Estimate:
    """Share of the answers that are right without gates, less that with them: of each image, the mean of the seeds."""
    by_image = np.stack([one.correct.astype(float) - other.correct for one, other in zip(plain, gated, strict=True)])
    return mean(by_image.mean(axis=0))


def _served(arguments: argparse.Namespace, precision: Precision) -> list[Served]:
    """The networks of the first seed, in turns."""
    if not arguments.rounds:
        return []
    offers = []
    for kind in _KINDS:
        folder = _folder(arguments, kind, arguments.seeds[0])
        exported = folder / "exported"
        if not (exported / MANIFEST_NAME).exists():
            command = [sys.executable, "-m", "export", str(folder / CHECKPOINT_NAME), "--images", str(arguments.data)]
            subprocess.run([*command, "--out", str(exported)], check=True)
        offers.append(Offer(kind, "", exported))
    files = sorted(path for path in arguments.data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    sent = [path.read_bytes() for path in files[:: max(1, len(files) // _FILES_SENT)]]
    return serve(offers, sent, [precision], arguments.rounds, arguments.seconds)


def _table(seeds: Sequence[int], judged: dict[str, list[Evaluation]]) -> str:
    rows = [
        (kind, str(seed), f"{each.accuracy:.1%}", f"{each.mac_share.mean():.1%}", f"{each.executed.mean():.1%}")
        for kind, found in judged.items()
        for seed, each in zip(seeds, found, strict=True)
    ]
    return table(("network", "seed", "accuracy", "MACs", "blocks executed"), rows)


def _row(each: Served) -> tuple[str, str, str, str]:
    return each.name, each.precision, f"{each.images_per_s:.1f}", f"{each.ratio:.2f}"


if __name__ == "__main__":
    sys.exit(main())
