"""Numbers as people read them: percentages, points, counts, and intervals in brackets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from models.intervals import Estimate

_MINUS = "\N{MINUS SIGN}"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, such as "64.0%"."""
    return "n/a" if math.isnan(share) else _signed_zero_free(100 * share, digits) + "%"


def percent_interval(estimate: Estimate, digits: int = 1) -> str:
    """A share with its interval, such as "88.3% (87.4% to 89.2%)"."""
    return _interval(estimate, lambda value: percent(value, digits))


def points_interval(estimate: Estimate, digits: int = 2) -> str:
    """A difference of shares in percentage points with its interval, such as "+0.06 points (-0.70 to +0.82)"."""
    value = f"{_plus(100 * estimate.value, digits)} points"
    if not estimate.has_interval:
        return value
    return f"{value} ({_plus(100 * estimate.low, digits)} to {_plus(100 * estimate.high, digits)})"


def number(value: float, digits: int = 2) -> str:
    """A number, such as "12.05", with a true minus sign."""
    return "n/a" if math.isnan(value) else _signed_zero_free(value, digits)


def number_interval(estimate: Estimate, digits: int = 2) -> str:
    """A number with its interval, such as "12.05 (11.92 to 12.18)"."""
    return _interval(estimate, lambda value: number(value, digits))


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as "1 block" or "2,000 images"."""
    plural = {"class": "classes"}.get(noun, f"{noun}s")
    return f"{count:,} {noun if count == 1 else plural}"


def listed(names: Sequence[str]) -> str:
    """Names in a row, such as "cat, dog and eel"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def json_estimate(estimate: Estimate) -> dict[str, float | None]:
    """An estimate for report.json; None where there is no number."""
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}


def _interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    if not estimate.has_interval:
        return text(estimate.value)
    return f"{text(estimate.value)} ({text(estimate.low)} to {text(estimate.high)})"


def _plus(value: float, digits: int) -> str:
    text = _signed_zero_free(value, digits)
    return text if text.startswith(_MINUS) or float(text) == 0 else f"+{text}"


def _signed_zero_free(value: float, digits: int) -> str:
    """A decimal number with a true minus sign, and none before a rounded zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else _MINUS)
