"""What the command line of training takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from models.command_line import add_bad_images, add_bottleneck_stride
from models.config import PRESETS, ModelConfig
from models.default_recipe import BATCH_SIZE, EPOCHS, default_settings, default_text
from models.device import Precision, default_device
from models.recipe import Recipe

# Share of the loss that a teacher has unless it is told.
_DISTILLATION = 0.5


def training_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
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
    add = partial(_add_setting, parser)
    parser.add_argument(
        "--epochs",
        type=int,
        help=f"times each training image is seen (default: {EPOCHS})",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help=f"images a step (default: {BATCH_SIZE})",
    )
    add("--lr", float, "peak_lr", "peak learning rate", metavar="LR")
    add(
        "--schedule",
        str,
        "schedule",
        "of the learning rate: one-cycle rises over the first 30%% of the steps, cosine over 5%%; then both fall",
        choices=("one-cycle", "cosine"),
    )
    add("--weight-decay", float, "weight_decay", "of convolutions and matrices")
    add("--target-weight", float, "target_weight", "of the target-rate loss beside the classification loss")
    add(
        "--target-warmup",
        float,
        "target_warmup",
        "part of the steps over which the target falls from all gates open",
        metavar="SHARE",
    )
    add(
        "--gate-noise",
        float,
        "gate_noise",
        "of the paper's Gumbel noise in training; with 0 gates decide as they are served",
        metavar="SHARE",
    )
    parser.add_argument(
        "--budgets",
        type=_budgets,
        metavar="LOW:HIGH",
        help="train for every share of the compute between these, such as 0.35:1.0, or for one, such as 0.6, of which "
        "each block takes what it needs (default: for the target rates)",
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
        help=f"of the classification loss that is the distance from the teacher's answers (default: {_DISTILLATION} "
        "with one)",
    )
    add("--feature-weight", float, "feature_weight", "of the distance from the teacher's features, beside that loss")
    add(
        "--backbone-lr",
        float,
        "backbone_lr",
        "learning rate of all weights but those of gates and classifier; 0 leaves them as they are",
        metavar="SHARE",
    )
    _add_switch(parser, "frozen_norms", "keep the statistics of batch norms, which a few images would spoil")
    add(
        "--ema",
        float,
        "ema_decay",
        "decay of a mean of all weights that takes their place; 0 keeps none",
        metavar="DECAY",
    )
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="end after so many epochs in a row that were not better on the held-out images (default: go on)",
    )
    add("--mixup", float, "mixup", "how much images and their classes are mixed; 0 mixes none", metavar="ALPHA")
    add(
        "--color-jitter",
        float,
        "color_jitter",
        "how much brightness, contrast and saturation of images change, as a share of them; needs torchvision",
        metavar="SHARE",
    )
    add(
        "--rand-augment",
        int,
        "rand_augment",
        "how strongly RandAugment distorts images, from 1 to 30, 9 being usual; needs torchvision",
        metavar="MAGNITUDE",
    )
    _add_switch(parser, "class_weights", "have images of rare classes count for more, so that all classes count alike")
    add("--label-smoothing", float, "label_smoothing", "of the classification loss, from 0 to below 1")
    add(
        "--smallest-image",
        float,
        "smallest_image",
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
    parser.add_argument(
        "--precision",
        default="auto",
        choices=precisions,
        help="of the computation; auto is bf16 where that is fast, or else fp16 on GPUs where that is (default: auto)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that decode images ahead (default: one less than there are cores, and 8 at most; none for "
        "images of 64 pixels or less, which stay decoded)",
    )
    told = "of the weights, the images' order and augmentation, and the gates' noise (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=Recipe().seed, help=told)
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: %(default)s)")
    return parser.parse_args(argv)


def _add_setting(parser: argparse.ArgumentParser, flag: str, kind: type, field: str, help_: str, **more: Any) -> None:
    """An option that is a field of the recipe, of the name it has there."""
    more.setdefault("metavar", None if "choices" in more else flag.strip("-").upper().replace("-", "_"))
    parser.add_argument(flag, type=kind, dest=field, help=f"{help_} (default: {default_text(field)})", **more)


def _add_switch(parser: argparse.ArgumentParser, field: str, help_: str) -> None:
    parser.add_argument(
        f"--{field.replace('_', '-')}",
        action=argparse.BooleanOptionalAction,
        help=f"{help_} (default: {default_text(field)})",
    )


def _budgets(text: str) -> tuple[float, float]:
    low, several, high = text.partition(":")
    try:
        return float(low), float(high if several else low)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"a number, or two with a colon between, not {text!r}") from error


def recipe_of(
    arguments: argparse.Namespace, config: ModelConfig, precision: Precision, images: int, held_out: int
) -> Recipe:
    """The settings of a run of a network on so many images, besides those held out.

    Raises:
        ValidationError: one of them is impossible.
    """
    settings = default_settings(config, arguments.source is not None, images)
    if arguments.teacher:
        settings["distillation"] = _DISTILLATION
    else:
        settings.pop("feature_weight", None)
    said = {name: value for name, value in vars(arguments).items() if name in Recipe.model_fields and value is not None}
    return Recipe.model_validate(settings | said | {"precision": precision, "held_out": held_out})
