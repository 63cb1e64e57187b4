"""A chart as SVG that is part of the page: its text stays text, and its colours are the page's, light or dark."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.figure import Figure

from models.palette import DEEP_BLUE, GREY, PALE_GREY

# Colours that must change with the page's background; those of the palette beside them are seen on both.
_VARIABLES = {"#000000": "--ink", GREY: "--muted", PALE_GREY: "--rule", DEEP_BLUE: "--blue"}
# White lines part what lies side by side; white letters stand on a dark cell and stay white.
_WHITE_LINE = "stroke: #ffffff"


def inline_svg(figure: Figure, key: str, label: str) -> str:
    """The figure as an <svg> element.

    Args:
        key: different for every figure of a page: the names inside the element begin with it.
        label: what the picture shows, for those who do not see it.
    """
    file = io.StringIO()
    # Text as text, and the same names inside the file in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'href="#|url\(#', lambda match: f"{match[0]}{key}-", svg)
    svg = svg.replace(_WHITE_LINE, "stroke: var(--paper)")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--sans)", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{_escaped(label)}"', 1).strip()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
