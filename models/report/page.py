"""The page: one HTML file that needs nothing else, readable on a phone, in the light and in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from models.report.section import Chart, Section
from models.report.svg import inline_svg

_SQUARE, _STEP = 7, 9  # sides of a block in the drawing of a path, and from one to the next, in pixels


def render_page(name: str, context: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page as HTML.

    Args:
        name: of the network.
        context: what it was asked, in one line.
        tiles: the figures to be seen first, each with what it is.
        sections: in order.
    """
    environment = Environment(
        loader=PackageLoader("models.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["path_drawing"] = _path_drawing
    charts = {section.key: [_drawn(section, number) for number in range(len(section.charts))] for section in sections}
    return environment.get_template("page.html").render(
        name=name,
        context=context,
        tiles=tiles,
        sections=sections,
        charts=charts,
        style=Markup(files("models.report").joinpath("page.css").read_text("utf-8")),
    )


def _drawn(section: Section, number: int) -> tuple[Chart, Markup]:
    chart = section.charts[number]
    return chart, Markup(inline_svg(chart.figure, f"{section.key}-{number}", chart.caption))


def _path_drawing(path: Sequence[Sequence[bool]]) -> Markup:
    """A row of squares for each stage: filled where the block ran, hollow where it was skipped."""
    marks = {True: "", False: ""}
    for row, stage in enumerate(path):
        for column, ran in enumerate(stage):
            marks[ran] += f"M{column * _STEP + 1} {row * _STEP + 1}h{_SQUARE}v{_SQUARE}h-{_SQUARE}z"
    width, height = max(map(len, path)) * _STEP, len(path) * _STEP
    return Markup(
        '<svg class="path" viewBox="0 0 {0} {1}" width="{0}" height="{1}" aria-hidden="true">'
        '<path class="ran" d="{2}"/><path class="skipped" d="{3}"/></svg>'
    ).format(width, height, marks[True], marks[False])
