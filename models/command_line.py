"""What the command lines of training, evaluation and export share."""

from __future__ import annotations

import argparse
import math


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
