"""Train a network.

    python -m models.train --preset convnet-aig-38-cifar10 --data PATH --out DIR

Started again with the same arguments after Ctrl-C or a kill, it goes on from the last checkpoint and ends where the
uninterrupted run would have ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
    parser.add_argument("--preset", required=True, metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("--data", required=True, type=Path, help="class folders, a tar of them, or CIFAR-10's batches")
    add_bad_images(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder of the run; an unfinished run there goes on")
    gates = parser.add_mutually_exclusive_group()
    gates.add_argument("--plain", action="store_true", help="without gates: the baseline")
    gates.add_argument(
        "--target-rate",
        type=float,
        nargs="+",
        metavar="RATE",
        help="one for all blocks or one a block; 1 means no gate (default: the preset's)",
    )
    parser.add_argument("--init", type=Path, help="checkpoint to start from; may be of the plain network")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--lr", type=float, default=default.peak_lr, help="peak learning rate")
    parser.add_argument("--schedule", choices=("one-cycle", "cosine"), default=default.schedule)
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay)
    parser.add_argument("--target-weight", type=float, default=default.target_weight)
    parser.add_argument("--target-warmup", type=float, default=default.target_warmup, metavar="SHARE")
    parser.add_argument("--label-smoothing", type=float, default=default.label_smoothing)
    parser.add_argument("--held-out", type=int, default=default.held_out, help="images kept for validation")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: %(default)s)")
    return parser.parse_args(argv)


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
            label_smoothing=arguments.label_smoothing,
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
