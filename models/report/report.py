"""The report as files: the page, and every figure for a machine to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from models.answers import Answers
from models.report.measurements import Measurements, measure
from models.report.page import render_page
from models.report.section import Section
from models.report.sections.accuracy import describe_accuracy
from models.report.sections.blocks import describe_blocks
from models.report.sections.classes import describe_classes
from models.report.sections.depth import describe_depth
from models.report.sections.nearness import describe_nearness
from models.report.sections.robustness import describe_robustness
from models.report.sections.stability import describe_stability
from models.report.subject import Subject
from models.report.wording import percent

PAGE_NAME, FIGURES_NAME = "index.html", "report.json"

_SECTIONS = (
    describe_accuracy,
    describe_blocks,
    describe_classes,
    describe_depth,
    describe_stability,
    describe_robustness,
    describe_nearness,
)


def write_report(subject: Subject, answers: Answers, folder: Path) -> Path:
    """Measure what the answers to all images do not tell, write the report into `folder`, and return the page's path.

    Raises:
        DataError: an image cannot be decoded.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)  # before the long work, which would be lost
    measured = measure(subject, answers)
    sections = [describe(subject, measured) for describe in _SECTIONS]
    name = subject.classifier.structure.name
    page = folder / PAGE_NAME
    page.write_text(render_page(name, subject.context, _tiles(measured), sections), encoding="utf-8")
    figures = {"network": name, "context": subject.context, "gate_offset": subject.gate_offset}
    content = json.dumps(figures | _figures(sections), indent=1, allow_nan=False)
    (folder / FIGURES_NAME).write_text(content + "\n", encoding="utf-8")
    return page


def _figures(sections: list[Section]) -> dict[str, Any]:
    return {
        section.key: {"question": section.question, "findings": section.findings, "missing": section.missing}
        | section.figures
        for section in sections
    }


def _tiles(measured: Measurements) -> list[tuple[str, str]]:
    evaluation = measured.answers.evaluation
    blocks = evaluation.executed.sum(axis=1)
    return [
        (f"{len(evaluation.classes):,}", "images"),
        (percent(evaluation.accuracy, 2), "classified correctly"),
        (percent(float(evaluation.mac_share.mean())), "of the ungated compute"),
        (f"{blocks.mean():.1f} of {evaluation.executed.shape[1]}", "blocks executed, mean"),
        (f"{len(np.unique(evaluation.executed, axis=0)):,}", "distinct paths"),
    ]
