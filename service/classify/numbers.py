"""Numbers that clients write into headers and forms."""

from __future__ import annotations

import math


def number_in(text: str) -> float:
    """The number as Python reads it, in time that grows with the text's length alone; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
