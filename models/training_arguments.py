"""What the command line of training takes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from models.command_line import add_bad_images, add_bottleneck_stride
from models.config import PRESETS
from models.device import Precision, default_device
from models.recipe import Recipe

# For CIFAR-10 the default recipe was made.
_IMAGES_OF_DEFAULT, _MOST_EPOCHS = 45_000, 200
# Of an epoch, and of a batch.
_FEWEST_STEPS, _SMALLEST_BATCH = 16, 8
# Share of the loss that a teacher has unless it is told.
_DISTILLATION = 0.5


def training_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
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
        "--from",
        dest="source",
        type=Path,
        metavar="WEIGHTS",
        help="start from these, of the same network with or without gates: a checkpoint, or weights of torchvision, "
        "timm or ConvNet-AIG; a classifier of other classes is made new (default: random weights)",
    )
    parser.add_argument("--fresh-gates", action="store_true", help="take no gates from them (default: those they have)")
    add_bottleneck_stride(parser)
    parser.add_argument("--name", help="of the network and of artifacts made of it (default: the preset's)")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the input (default: the preset's)")
    add = partial(_add_with_default, parser)
    parser.add_argument(
        "--epochs",
        type=int,
        help="times each training image is seen (default: 30 of 45,000 images or more, up to 200 of fewer; a third of "
        "that with --from)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help=f"images a step (default: {default.batch_size}, halved until an epoch has {_FEWEST_STEPS} steps)",
    )
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
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="CHECKPOINT",
        help="learn from the answers of this network of the same classes too, such as the one without gates (default: "
        "none)",
    )
    parser.add_argument(
        "--distillation",
        type=float,
        metavar="SHARE",
        help=f"of the classification loss that is the distance from the teacher (default: {_DISTILLATION} with one)",
    )
    add(
        "--backbone-lr",
        float,
        default.backbone_lr,
        "learning rate of all weights but those of gates and classifier; 0 leaves them as they are",
        metavar="SHARE",
    )
    parser.add_argument(
        "--frozen-norms",
        action="store_true",
        help="keep the statistics of batch norms, which a few images would spoil (default: they follow the data)",
    )
    add(
        "--ema",
        float,
        default.ema_decay,
        "decay of a mean of all weights that takes their place; 0 keeps none",
        metavar="DECAY",
    )
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="end after so many epochs in a row that were not better on the held-out images (default: go on)",
    )
    add("--mixup", float, default.mixup, "how much images and their classes are mixed; 0 mixes none", metavar="ALPHA")
    add(
        "--color-jitter",
        float,
        default.color_jitter,
        "how much brightness, contrast and saturation of images change, as a share of them; needs torchvision",
        metavar="SHARE",
    )
    add(
        "--rand-augment",
        int,
        default.rand_augment,
        "how strongly RandAugment distorts images, from 1 to 30, 9 being usual; needs torchvision",
        metavar="MAGNITUDE",
    )
    parser.add_argument(
        "--class-weights",
        action="store_true",
        help="have images of rare classes count for more, so that all classes count alike (default: all images do)",
    )
    add("--label-smoothing", float, default.label_smoothing, "of the classification loss, from 0 to below 1")
    add(
        "--smallest-image",
        float,
        default.smallest_image,
        "side of the images at the first step, of the full one; it grows to that by three quarters of the steps",
        metavar="SHARE",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        metavar="N",
        help="images kept for validation, the same share of each class (default: a tenth, but 500 of 2,500 or more; or "
        "those in the val folder of the data)",
    )
    precisions = ("auto", "bf16", "fp16", "fp32")
    fast = "of the computation; auto is bf16 where that is fast, or else fp16 on GPUs where that is"
    add("--precision", str, "auto", fast, choices=precisions)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that decode images ahead (default: one less than there are cores, and 8 at most; none for "
        "images of 64 pixels or less, which stay decoded)",
    )
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


def default_epochs(images: int, pretrained: bool) -> int:
    """How often so many images are seen: fewer images more often, but not as much more as they are fewer.

    A rule of thumb; of pretrained weights a third is enough.
    """
    default = Recipe().epochs
    epochs = min(_MOST_EPOCHS, max(default, round(default * math.sqrt(_IMAGES_OF_DEFAULT / max(1, images)))))
    return max(1, round(epochs / 3)) if pretrained else epochs


def default_batch_size(images: int) -> int:
    """How many of so many images are a batch: few enough that an epoch has some steps."""
    size = Recipe().batch_size
    while size > _SMALLEST_BATCH and images // size < _FEWEST_STEPS:
        size //= 2
    return size


def recipe_of(arguments: argparse.Namespace, precision: Precision, images: int, held_out: int) -> Recipe:
    """The settings of a run on so many images, besides those held out.

    Raises:
        ValidationError: one of them is impossible.
    """
    return Recipe(
        epochs=default_epochs(images, arguments.source is not None) if arguments.epochs is None else arguments.epochs,
        batch_size=default_batch_size(images) if arguments.batch_size is None else arguments.batch_size,
        held_out=held_out,
        peak_lr=arguments.lr,
        schedule=arguments.schedule,
        weight_decay=arguments.weight_decay,
        target_weight=arguments.target_weight,
        target_warmup=arguments.target_warmup,
        budgets=arguments.budgets,
        distillation=_distillation(arguments),
        backbone_lr=arguments.backbone_lr,
        frozen_norms=arguments.frozen_norms,
        ema_decay=arguments.ema,
        patience=arguments.patience,
        mixup=arguments.mixup,
        color_jitter=arguments.color_jitter,
        rand_augment=arguments.rand_augment,
        class_weights=arguments.class_weights,
        label_smoothing=arguments.label_smoothing,
        smallest_image=arguments.smallest_image,
        precision=precision,
        seed=arguments.seed,
    )


def _distillation(arguments: argparse.Namespace) -> float:
    """The teacher's share of the loss."""
    if arguments.distillation is not None:
        return float(arguments.distillation)
    return _DISTILLATION if arguments.teacher else 0.0
