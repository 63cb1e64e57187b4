"""What the command lines of training, evaluation and export share."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import get_args

from models.bad_images import BadImages
from models.config import PRESETS, BottleneckStride
from models.labels import read_labels
from models.opening import Told

_INTERRUPTED = 130


def finite(text: str) -> float:
    """The type of an argument that is a finite number.

    Raises:
        argparse.ArgumentTypeError: it is infinite, or not a number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def add_bad_images(parser: argparse.ArgumentParser) -> None:
    """Add `--bad-images`, which must be the same wherever the same images are to be held out."""
    parser.add_argument(
        "--bad-images",
        choices=get_args(BadImages),
        default="stop",
        help="images that cannot be read: stop at the first, or name them and skip them, which takes decoding all "
        "of the data first (default: %(default)s)",
    )


def add_told(parser: argparse.ArgumentParser) -> None:
    """Add what has to be told of weights that others saved, see `models.pretrained`."""
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help=f"for weights that others saved, a network of the same shape (default: none): {', '.join(PRESETS)}",
    )
    parser.add_argument("--plain", action="store_true", help="with --preset: they are without gates (default: with)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="with --preset: names of their classes, as a JSON list, a JSON object from index to name, or one a line "
        "(default: the preset's, or numbers)",
    )
    add_bottleneck_stride(parser)


def add_bottleneck_stride(parser: argparse.ArgumentParser) -> None:
    """Add `--bottleneck-stride`."""
    parser.add_argument(
        "--bottleneck-stride",
        choices=get_args(BottleneckStride),
        help="which convolution of the first bottleneck block of a stage has its stride, in weights that others saved "
        "(default: what their file tells, else 3x3)",
    )


def told_of(arguments: argparse.Namespace) -> Told | None:
    """What was told of weights that others saved; None where nothing was.

    Raises:
        DataError: the labels cannot be read.
        ValueError: something is told of no such weights.
    """
    if arguments.preset is None:
        if arguments.plain or arguments.bottleneck_stride or arguments.labels:
            raise ValueError(
                "--plain, --labels and --bottleneck-stride are for weights that others saved: add --preset"
            )
        return None
    labels = read_labels(arguments.labels) if arguments.labels else None
    return Told(arguments.preset, arguments.plain, arguments.bottleneck_stride, labels)


def interrupted(consequence: str) -> int:
    """Say in one line that Ctrl-C was pressed and what comes of it; return the exit status for that, 128 + SIGINT."""
    print(f"interrupted: {consequence}", file=sys.stderr)
    return _INTERRUPTED
