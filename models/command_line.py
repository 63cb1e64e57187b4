"""What the command lines of training, evaluation and export share."""

from __future__ import annotations

import argparse
import math
import sys
from typing import get_args

from models.bad_images import BadImages

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


def interrupted(consequence: str) -> int:
    """Say in one line that Ctrl-C was pressed and what comes of it; return the exit status for that, 128 + SIGINT."""
    print(f"interrupted: {consequence}", file=sys.stderr)
    return _INTERRUPTED
