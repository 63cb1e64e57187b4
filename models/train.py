"""Train a network.

    python -m models.train --preset convnet-aig-38-cifar10 --data PATH --out DIR

Started again with the same arguments after Ctrl-C or a kill, it goes on from the last checkpoint and ends where the
uninterrupted run would have ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from artifact.manifest import file_digest
from models.checkpoint import CheckpointError, load
from models.command_line import add_bad_images, interrupted
from models.config import PRESETS, ModelConfig, preset
from models.data import Dataset, load_pixels, split
from models.device import default_device, fast_precision, usable_device, use_sound_gradients
from models.examples import DataError
from models.recipe import Recipe
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from models.trainer import CHECKPOINT_NAME, Trainer, warm_start


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    default = Recipe()
    parser = argparse.ArgumentParser(prog="python -m models.train", description="Train a gated residual network.")
    parser.add_argument("--preset", required=True, metavar="NAME", help=f"network: {', '.join(PRESETS)}")
    parser.add_argument("--data", required=True, type=Path, help="class folders, a tar of them, or CIFAR-10's batches")
    add_bad_images(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder of the run; an unfinished run there goes on")
    gates = parser.add_mutually_exclusive_group()
    gates.add_argument("--plain", action="store_true", help="without gates: the baseline (default: with)")
    gates.add_argument(
        "--target-rate",
        type=float,
        nargs="+",
        metavar="RATE",
        help="one for all blocks or one a block; 1 means no gate (default: the preset's)",
    )
    parser.add_argument(
        "--init", type=Path, help="checkpoint to start from; may be of the plain network (default: none)"
    )
    add = partial(_add_with_default, parser)
    add("--epochs", int, default.epochs, "times each training image is seen")
    add("--batch-size", int, default.batch_size, "images a step")
    add("--lr", float, default.peak_lr, "peak learning rate")
    add(
        "--schedule",
        str,
        default.schedule,
        "of the learning rate: one-cycle rises over the first 30%% of the steps, cosine over 5%%; then both fall",
        choices=("one-cycle", "cosine"),
    )
    add("--weight-decay", float, default.weight_decay, "of convolutions and matrices; for ImageNet 1e-4 was published")
    add("--target-weight", float, default.target_weight, "of the target-rate loss beside the classification loss")
    add(
        "--target-warmup", float, default.target_warmup, "part of the steps over which it rises from 0", metavar="SHARE"
    )
    parser.add_argument(
        "--budgets",
        type=_budgets,
        metavar="LOW:HIGH",
        help="train for every share of the compute between these, such as 0.35:1.0 (default: for the target rates)",
    )
    add("--label-smoothing", float, default.label_smoothing, "of the classification loss, from 0 to below 1")
    add(
        "--smallest-image",
        float,
        default.smallest_image,
        "side of the images at the first step, of the full one; it grows to that by three quarters of the steps",
        metavar="SHARE",
    )
    add("--held-out", int, default.held_out, "images kept for validation", metavar="N")
    precisions = ("auto", "bf16", "fp32")
    add("--precision", str, "auto", "of the computation; auto is bf16 where that is fast", choices=precisions)
    add("--seed", int, default.seed, "of the weights, the images' order and augmentation, and the gates' noise")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: %(default)s)")
    return parser.parse_args(argv)


def _add_with_default(
    parser: argparse.ArgumentParser, flag: str, kind: type, default: object, help_: str, **more: Any
) -> None:
    parser.add_argument(flag, type=kind, default=default, help=f"{help_} (default: %(default)s)", **more)


def _budgets(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"two numbers with a colon between, not {text!r}") from error


def _config(arguments: argparse.Namespace, labels: tuple[str, ...]) -> ModelConfig:
    config = preset(arguments.preset).with_labels(labels)
    if arguments.target_rate is not None:
        rates = tuple(arguments.target_rate)
        config = config.with_target_rates(rates if len(rates) > 1 else rates[0])
    return config.without_gates() if arguments.plain else config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments(argv)
    path: Path = arguments.out / CHECKPOINT_NAME
    try:
        device = usable_device(arguments.device)
        use_sound_gradients(device)
        precision = fast_precision(device) if arguments.precision == "auto" else arguments.precision
        recipe = Recipe(
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            peak_lr=arguments.lr,
            schedule=arguments.schedule,
            weight_decay=arguments.weight_decay,
            target_weight=arguments.target_weight,
            target_warmup=arguments.target_warmup,
            budgets=arguments.budgets,
            label_smoothing=arguments.label_smoothing,
            smallest_image=arguments.smallest_image,
            held_out=arguments.held_out,
            precision=precision,
            seed=arguments.seed,
        )
        examples = open_examples(arguments.data)
        config = _config(arguments, examples.labels)
        torch.manual_seed(recipe.seed)
        network = AdaptiveResNet(config).to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        init_digest = None
        if arguments.init:
            warm_start(network, load(arguments.init))
            init_digest = file_digest(arguments.init)
        examples, pixels = load_pixels(examples, config.preprocessing, arguments.bad_images)
        train_indices, held_out = split(examples, recipe.held_out)
        training, validation = (
            Dataset(examples, indices, config.preprocessing, pixels) for indices in (train_indices, held_out)
        )
        trainer = Trainer(network, recipe, training, validation, arguments.out, init_digest=init_digest)
        if path.exists():
            trainer.resume(load(path))
        if trainer.finished:
            print("the training was finished already")
        else:
            trainer.run()
    except ValidationError as error:
        print("error:", "; ".join(": ".join([*map(str, p["loc"]), p["msg"]]) for p in error.errors()), file=sys.stderr)
        return 1
    except (DataError, CheckpointError, ValueError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "goes on from the last checkpoint" if path.exists() else "starts again, as there is no checkpoint yet"
        return interrupted(f"the same command {goes_on}")
    print(f"the network is in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
