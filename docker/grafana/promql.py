"""The expressions that panels of both kinds are made of."""

from __future__ import annotations

import re

# A metric of a model, and whether it has conditions already.
_OF_A_MODEL = re.compile(r"\b((?:\w+:)?aig_\w+(?::\w+)?)(\{)?")

# The routes that classify; probes, scrapes and /model would hide what happens to images.
CLASSIFY = 'route=~".*/(classify(/batch)?|infer)"'


def rate(metric: str, by: str = "") -> str:
    """How fast a counter grows, a second, summed over all labels but `by`."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}[$__rate_interval]))"


def quantile(share: float, histogram: str) -> str:
    """The value that `share` of a histogram's observations do not exceed; `histogram` may have labels in braces."""
    name, _, labels = histogram.partition("{")
    buckets = f"{name}_bucket" + (f"{{{labels}" if labels else "")
    return f"histogram_quantile({share}, {rate(buckets, 'le')})"


def or_none(expr: str, label: str, text: str = "none") -> str:
    """What there is, and a flat line with a name where there is nothing: an empty panel would look broken."""
    return f'{expr} or on() label_replace(vector(0), "{label}", "{text}", "", "")'


def of_chosen_model(expr: str) -> str:
    """The same of the model that is chosen on the dashboard."""
    return _OF_A_MODEL.sub(lambda found: f'{found[1]}{{model="$model"{", " if found[2] else "}"}', expr)
