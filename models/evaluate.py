"""Say what a network does on a set of images: its accuracy, what it executes, and what that costs.

    python -m models.evaluate CHECKPOINT --data PATH

Figures for people come first; the last line on stdout is the same as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.checkpoint import Checkpoint, CheckpointError, load, load_published
from models.config import PRESETS, preset
from models.data import Dataset, load_pixels, split
from models.device import default_device, usable_device
from models.evaluation import Evaluation, evaluate
from models.examples import DataError, Examples
from models.pictures import MOST_CLASSES, shown_classes, write_pictures
from models.recipe import Recipe
from models.sources import open_examples

# With more blocks than this, a class's rates are told in tenths, one digit a block, to keep its row on one line.
_MOST_COLUMNS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments(argv)
    try:
        examples = open_examples(arguments.data)
        checkpoint = _open_checkpoint(arguments.checkpoint, arguments.preset, examples)
        evaluation = _evaluate(arguments, checkpoint, examples)
        folder = arguments.out or arguments.checkpoint.parent / "evaluation"
        pictures = write_pictures(evaluation, folder, checkpoint.config.name)
    except (DataError, CheckpointError, ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    chosen = "all" if arguments.all else "held-out"
    print(
        f"{checkpoint.config.name}, {chosen} images of {arguments.data.name}, gate offset {arguments.gate_offset:g}\n"
    )
    for line in _report(evaluation):
        print(line)
    print("\npictures:", *pictures, sep="\n  ")
    source = {"checkpoint": arguments.checkpoint.name, "split": chosen, "gate_offset": arguments.gate_offset}
    print(json.dumps(source | evaluation.summary()))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description="Evaluate a gated residual network.")
    parser.add_argument("checkpoint", type=Path, help="of this project, or a published .pth.tar together with --preset")
    parser.add_argument("--data", required=True, type=Path, help="class folders, a tar of them, or CIFAR-10's batches")
    parser.add_argument("--preset", metavar="NAME", help=f"network of a published checkpoint: {', '.join(PRESETS)}")
    which = parser.add_mutually_exclusive_group()
    default = Recipe().held_out
    which.add_argument("--held-out", type=int, default=default, metavar="N", help=f"images kept (default: {default})")
    which.add_argument("--all", action="store_true", help="every image, not only those held out of training")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--gate-offset", type=float, default=0.0, help="added to every margin: below 0 skips more")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="of the pictures (default: evaluation/ beside CHECKPOINT)"
    )
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: %(default)s)")
    return parser.parse_args(argv)


def _open_checkpoint(path: Path, preset_name: str | None, examples: Examples) -> Checkpoint:
    """The checkpoint, of which the classes are those of the examples."""
    if preset_name is None:
        if path.name.endswith(".pth.tar"):
            raise CheckpointError(f"{path} is a published checkpoint, which does not say its network: add --preset")
        checkpoint = load(path)
    else:
        checkpoint = load_published(path, preset(preset_name))
    labels = checkpoint.config.labels
    # A published ImageNet network numbers its classes in the order of the synsets, which is that of the data's folders.
    if preset_name is not None and checkpoint.config.stem == "imagenet" and len(labels) == len(examples.labels):
        return replace(checkpoint, config=checkpoint.config.with_labels(examples.labels))
    if labels != examples.labels:
        raise DataError(f"the data's classes are {_few(examples.labels)}; those of {path.name} are {_few(labels)}")
    return checkpoint


def _evaluate(arguments: argparse.Namespace, checkpoint: Checkpoint, examples: Examples) -> Evaluation:
    if arguments.batch_size < 1:
        raise ValueError("--batch-size must be at least 1")
    if arguments.held_out < 1:
        raise ValueError("--held-out must be at least 1")
    indices = np.arange(len(examples)) if arguments.all else split(examples, arguments.held_out)[1]
    network = checkpoint.network().to(usable_device(arguments.device))
    config = checkpoint.config
    dataset = Dataset(examples, indices, config.preprocessing, load_pixels(examples, config.preprocessing))
    with tqdm(desc="evaluating", total=len(dataset), unit="image", leave=False, disable=None) as bar:
        return evaluate(network, dataset, arguments.batch_size, arguments.gate_offset, progress=bar.update)


def _report(evaluation: Evaluation) -> Iterator[str]:
    """Lines for people: overall, by block and by class."""
    summary = evaluation.summary()
    yield f"images              {summary['images']}"
    yield f"accuracy            {summary['accuracy']:.2%}"
    yield f"mean share of MACs  {summary['mac_share']:.1%} of the network without gates"
    yield f"                    {summary['mac_share_p05']:.1%} to {summary['mac_share_p95']:.1%} for 90% of the images"
    yield f"blocks executed     {summary['executed_share']:.1%}"
    yield f"distinct paths      {summary['distinct_paths']}"
    yield ""
    width = max(map(len, ["block", *evaluation.block_names]))
    yield f"{'block':{width}}  execution rate"
    for name, rate in summary["execution_rates"].items():
        yield f"{name:{width}}  {rate:>14.1%}"
    yield ""
    yield from _class_table(evaluation)


def _class_table(evaluation: Evaluation) -> Iterator[str]:
    """One line a class, from least to most compute."""
    rows = shown_classes(evaluation)
    classes = len(np.unique(evaluation.classes))
    if len(rows) < classes:
        half = MOST_CLASSES // 2
        yield f"the {half} classes with the least and the {half} with the most compute, of {classes}"
    stages = [len(list(blocks)) for _, blocks in groupby(evaluation.block_names, lambda name: name.split("_")[0])]
    in_percent = len(evaluation.block_names) <= _MOST_COLUMNS
    unit = "in percent" if in_percent else "in tenths, rounded down, * for always"
    width = max(len("class"), *(len(evaluation.labels[row]) for row in rows))
    yield f"{'class':{width}}  images  accuracy   MACs   execution rate of each block, stage by stage, {unit}"
    counts = np.bincount(evaluation.classes, minlength=len(evaluation.labels))
    accuracies, shares, rates = evaluation.class_accuracies, evaluation.class_mac_shares, evaluation.class_rates
    for row in rows:
        figures = f"{counts[row]:6}  {accuracies[row]:8.1%}  {shares[row]:5.1%}"
        yield f"{evaluation.labels[row]:{width}}  {figures}   {_rates(rates[row], stages, in_percent)}"


def _rates(rates: np.ndarray, stages: list[int], in_percent: bool) -> str:
    """Execution rates (B,) as text, with a wider gap between stages."""
    if in_percent:
        cells = [f"{100 * rate:4.0f}" for rate in rates]
    else:
        cells = ["*" if rate == 1 else str(int(10 * rate)) for rate in rates]
    ends = np.cumsum(stages)
    return " ".join("".join(cells[end - count : end]) for count, end in zip(stages, ends, strict=True))


def _few(labels: tuple[str, ...]) -> str:
    """Class names short enough for one line."""
    return ", ".join(labels[:3]) + (f", … ({len(labels)} in all)" if len(labels) > 3 else "")


if __name__ == "__main__":
    sys.exit(main())
