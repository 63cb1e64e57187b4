"""Which blocks run for which images: which always, which for some classes, and how much of it the class explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from models.evaluation import Evaluation
from models.intervals import FEWEST_IMAGES
from models.palette import DEEP_BLUE, GREY
from models.pictures import draw_execution_rates
from models.report.drawing import add_legend, as_percent, blank_rows, name_axes
from models.report.measurements import Measurements
from models.report.section import Chart, Section, Table
from models.report.subject import Subject
from models.report.wording import counted, listed, percent

# A block that runs for nearly all images, or nearly none, does not choose; one whose rates differ this much between
# classes specialises.
_NEARLY_ALL, _NEARLY_NONE = 0.99, 0.01
_SPECIALISED_SPREAD = 0.5

# By kind: the verb for one block, that for several, and the rest of the sentence.
_KIND_WORDS = {
    "nearly always": ("runs", "run", "for nearly every image"),
    "nearly never": ("runs", "run", "for nearly none"),
    "by class": ("runs", "run", "far more often for some classes than for others"),
    "by image": ("chooses", "choose", "by image with less regard to the class"),
}

_METHOD = (
    "The execution rate of a block is the share of images for which it runs. Its spread is the highest minus the "
    f"lowest rate among classes of at least {FEWEST_IMAGES} images. What the class explains is the mutual "
    "information between the class and the gate's decision over the entropy of the decision, corrected for the "
    "number of images (Miller and Madow): 0% if a block runs as often for every class, 100% if the class alone "
    "decides."
)


@dataclass(frozen=True)
class BlockUse:
    """How one block is used.

    Attributes:
        name: of the block.
        gated: whether a gate decides about it.
        rate: its execution rate.
        lowest, highest: indices of the classes for which it runs least and most often.
        lowest_rate, highest_rate: how often that is.
        explained: share of its gate's entropy that the class explains; 0 where it does not choose.
    """

    name: str
    gated: bool
    rate: float
    lowest: int
    highest: int
    lowest_rate: float
    highest_rate: float
    explained: float

    @property
    def spread(self) -> float:
        return self.highest_rate - self.lowest_rate

    @property
    def kind(self) -> str:
        """How the block is used, in words."""
        if not self.gated:
            return "no gate"
        if self.rate >= _NEARLY_ALL:
            return "nearly always"
        if self.rate <= _NEARLY_NONE:
            return "nearly never"
        return "by class" if self.spread >= _SPECIALISED_SPREAD else "by image"


def describe_blocks(subject: Subject, measured: Measurements) -> Section:
    """The section on execution rates."""
    evaluation = measured.answers.evaluation
    uses = block_uses(evaluation, subject.classifier.structure.gated)
    labels = evaluation.labels
    gated = [use for use in uses if use.gated]
    own = [
        Chart(_draw_spread(gated), "Each gated block's execution rate, and those of its extreme classes."),
        Chart(_draw_explained(gated), "How much of each gate's decisions the class explains."),
    ]
    return Section(
        key="blocks",
        question="Which blocks run, and for what?",
        findings=tuple(_findings(uses, labels)),
        figures={
            "blocks": {use.name: _figures(use, labels) for use in uses},
            "distinct_paths": len(np.unique(evaluation.executed, axis=0)),
            "class_rates": {
                label: dict(zip(evaluation.block_names, rates.tolist(), strict=True))
                for label, rates in zip(labels, evaluation.class_rates, strict=True)
                if not np.isnan(rates).any()
            },
        },
        method=_METHOD,
        charts=(
            Chart(
                draw_execution_rates(evaluation, subject.classifier.structure.name),
                "Execution rate of each block (columns) for each class (rows), in percent.",
                wide=True,
            ),
            *(own if gated else []),
        ),
        tables=(_table(uses, labels),),
    )


def block_uses(evaluation: Evaluation, gated: np.ndarray) -> list[BlockUse]:
    """How every block is used; `gated` are the positions of those with a gate."""
    counts = np.bincount(evaluation.classes, minlength=len(evaluation.labels))
    compared = np.flatnonzero(counts >= min(FEWEST_IMAGES, counts.max()))
    rates = evaluation.class_rates[compared]  # (compared classes, B)
    uses = []
    for index, name in enumerate(evaluation.block_names):
        lowest, highest = int(rates[:, index].argmin()), int(rates[:, index].argmax())
        uses.append(
            BlockUse(
                name=name,
                gated=index in gated,
                rate=float(evaluation.executed[:, index].mean()),
                lowest=int(compared[lowest]),
                highest=int(compared[highest]),
                lowest_rate=float(rates[lowest, index]),
                highest_rate=float(rates[highest, index]),
                explained=explained_share(evaluation.executed[:, index], evaluation.classes),
            )
        )
    return uses


def explained_share(executed: np.ndarray, classes: np.ndarray) -> float:
    """Share of the entropy of `executed` (N,) that `classes` (N,) explain; see the section's method."""
    whole = _entropy(float(executed.mean()))
    if whole == 0:
        return 0.0
    present, counts = np.unique(classes, return_counts=True)
    within = sum(
        count * _entropy(float(executed[classes == index].mean())) for index, count in zip(present, counts, strict=True)
    ) / len(classes)
    by_chance = (len(present) - 1) / (2 * len(classes))
    return float(np.clip((whole - within - by_chance) / whole, 0, 1))


def _entropy(rate: float) -> float:
    """Entropy in nats of a decision that is taken at this rate."""
    return 0.0 if rate in (0, 1) else float(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))


def _findings(uses: list[BlockUse], labels: tuple[str, ...]) -> Iterator[str]:
    kinds = {kind: [use.name for use in uses if use.kind == kind] for kind in {use.kind for use in uses}}
    gated = [use for use in uses if use.gated]
    if not gated:
        yield f"None of the {counted(len(uses), 'block')} has a gate: all run for every image."
        return
    parts = [_used(len(kinds[kind]), *words) for kind, words in _KIND_WORDS.items() if kind in kinds]
    if len(gated) < len(uses):
        parts.append(_used(len(uses) - len(gated), "runs", "run", "always, without a gate"))
    yield f"Of the {len(uses)} blocks, {listed(parts)}."
    strongest = sorted(gated, key=lambda use: -use.spread)[:3]
    if strongest[0].spread > 0:
        specialists = [
            f"{use.name} ({percent(use.highest_rate, 0)} of {labels[use.highest]}, "
            f"{percent(use.lowest_rate, 0)} of {labels[use.lowest]})"
            for use in strongest
        ]
        yield f"The classes differ most about {listed(specialists)}."
    choosing = [use for use in gated if use.kind in ("by class", "by image")]
    if choosing:
        mean = float(np.mean([use.explained for use in choosing]))
        most = max(choosing, key=lambda use: use.explained)
        yield (
            f"The class explains {percent(mean, 0)} of what these gates decide on average, and "
            f"{percent(most.explained, 0)} for {most.name}; the rest differs from image to image within a class."
        )


def _used(count: int, verb: str, plural_verb: str, how: str) -> str:
    return f"{count} {verb if count == 1 else plural_verb} {how}"


def _figures(use: BlockUse, labels: tuple[str, ...]) -> dict[str, object]:
    return {
        "use": use.kind,
        "execution_rate": use.rate,
        "lowest_class": labels[use.lowest],
        "lowest_rate": use.lowest_rate,
        "highest_class": labels[use.highest],
        "highest_rate": use.highest_rate,
        "explained_by_class": use.explained,
    }


def _draw_spread(uses: list[BlockUse]) -> Figure:
    figure, axes = blank_rows([use.name.replace("_", " ") for use in uses])
    rows = np.arange(len(uses))
    lowest, highest = [use.lowest_rate for use in uses], [use.highest_rate for use in uses]
    axes.hlines(rows, lowest, highest, color=GREY, linewidth=2, label="from the lowest to the highest class")
    axes.plot([use.rate for use in uses], rows, "o", color=DEEP_BLUE, markersize=6, label="all images")
    axes.set_xlim(-0.02, 1.02)
    name_axes(axes, "execution rate")
    as_percent(axes, "x")
    add_legend(axes, 2)
    return figure


def _draw_explained(uses: list[BlockUse]) -> Figure:
    figure, axes = blank_rows([use.name.replace("_", " ") for use in uses])
    axes.barh(range(len(uses)), [use.explained for use in uses], 0.7, color=DEEP_BLUE)
    axes.set_xlim(left=0)
    name_axes(axes, "share of the decision's entropy that the class explains")
    as_percent(axes, "x")
    return figure


def _table(uses: list[BlockUse], labels: tuple[str, ...]) -> Table:
    rows = tuple(
        (
            use.name,
            use.kind,
            percent(use.rate),
            f"{labels[use.lowest]} {percent(use.lowest_rate, 0)}",
            f"{labels[use.highest]} {percent(use.highest_rate, 0)}",
            percent(use.explained, 0) if use.gated else "",
        )
        for use in uses
    )
    head = ("block", "runs", "rate", "lowest class", "highest class", "class explains")
    return Table(head, rows, "How each block is used")
