"""What a section of the report is made of, before anything is laid out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Chart:
    """A picture with the sentence below it; a wide one keeps its size on a narrow screen and is scrolled."""

    figure: Figure
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row, the others are aligned as numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """One image of a gallery.

    Attributes:
        source: the image as a data URI; None in a page that is to have no images.
        name: of the image in the data.
        path: for each stage, whether each of its blocks ran.
        verdict: what the network said, and how deep it went.
        correct: whether that was right.
    """

    source: str | None
    name: str
    path: tuple[tuple[bool, ...], ...]
    verdict: str
    correct: bool


@dataclass(frozen=True)
class Gallery:
    """Two kinds of images of each class, side by side."""

    title: str
    kinds: tuple[str, str]
    rows: tuple[tuple[str, tuple[Thumbnail, ...], tuple[Thumbnail, ...]], ...]


@dataclass(frozen=True)
class Section:
    """One question and what was found.

    Attributes:
        key: names it in links and in report.json.
        question: the heading.
        findings: plain sentences computed from the figures; the first stands for the section in the summary.
        missing: what could not be computed, and what would allow it.
        method: how the figures came about.
        figures: for a machine to read.
    """

    key: str
    question: str
    findings: tuple[str, ...]
    figures: dict[str, Any]
    method: str
    missing: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = field(default=())
