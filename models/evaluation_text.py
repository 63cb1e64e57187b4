"""An evaluation as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from models.classification import most_confused
from models.evaluation import Evaluation
from models.intervals import FEWEST_IMAGES, share
from models.pictures import MOST_CLASSES, shown_classes

# With more blocks than this, a class's rates are told in tenths, one digit a block, to keep its row on one line.
_MOST_COLUMNS = 20
_MOST_CONFUSIONS = 10


def report_lines(evaluation: Evaluation) -> Iterator[str]:
    """Overall, by block and by class."""
    summary = evaluation.summary()
    yield from _quality(evaluation)
    yield f"mean share of MACs  {summary['mac_share']:.1%} of the network without gates"
    yield f"                    {summary['mac_share_p05']:.1%} to {summary['mac_share_p95']:.1%} for 90% of the images"
    yield f"blocks executed     {summary['executed_share']:.1%}"
    yield f"distinct paths      {summary['distinct_paths']}"
    yield ""
    width = max(map(len, ["block", *evaluation.block_names]))
    yield f"{'block':{width}}  execution rate"
    for name, rate in summary["execution_rates"].items():
        yield f"{name:{width}}  {rate:>14.1%}"
    yield ""
    yield from _class_table(evaluation)
    if confusions := most_confused(evaluation.confusions, _MOST_CONFUSIONS):
        yield ""
        yield "most frequent confusions"
        for true, predicted, images in confusions:
            yield f"{images:6}  {evaluation.labels[true]} taken for {evaluation.labels[predicted]}"


def _quality(evaluation: Evaluation) -> Iterator[str]:
    """How good the answers are; of a few images nothing is said."""
    images = len(evaluation.classes)
    yield f"images              {images}"
    if images < FEWEST_IMAGES:
        yield f"accuracy            {evaluation.correct.sum()} of {images} images: too few to say"
        return
    estimate = share(evaluation.correct)
    yield f"accuracy            {estimate.value:.2%}, with 95% confidence {estimate.low:.1%} to {estimate.high:.1%}"
    if evaluation.top_5_accuracy is not None:
        yield f"top-5 accuracy      {evaluation.top_5_accuracy:.2%}"
    yield f"mean F1             {np.nanmean(evaluation.scores.f1):.1%} over the classes"
    yield (
        f"calibration error   {evaluation.calibration_error:.1%}; the mean probability of the predictions is "
        f"{evaluation.guesses.confidences.mean():.1%}"
    )


def _class_table(evaluation: Evaluation) -> Iterator[str]:
    """One line a class, from least to most compute."""
    rows = shown_classes(evaluation)
    classes = len(np.unique(evaluation.classes))
    if len(rows) < classes:
        half = MOST_CLASSES // 2
        yield f"the {half} classes with the least and the {half} with the most compute, of {classes}"
    stages = [len(list(blocks)) for _, blocks in groupby(evaluation.block_names, lambda name: name.split("_")[0])]
    in_percent = len(evaluation.block_names) <= _MOST_COLUMNS
    unit = "in percent" if in_percent else "in tenths, rounded down, * for always"
    width = max(len("class"), *(len(evaluation.labels[row]) for row in rows))
    head = "images  precision  recall     F1   MACs   execution rate of each block, stage by stage, "
    yield f"{'class':{width}}  {head}{unit}"
    counts = np.bincount(evaluation.classes, minlength=len(evaluation.labels))
    scores, shares, rates = evaluation.scores, evaluation.class_mac_shares, evaluation.class_rates
    for row in rows:
        told = f"{_percent(scores.precision[row]):>9}  {_percent(scores.recall[row]):>6}  {_percent(scores.f1[row]):>5}"
        if counts[row] < FEWEST_IMAGES:
            told = f"{'too few to say':>24}"
        figures = f"{counts[row]:6}  {told}  {shares[row]:5.1%}"
        yield f"{evaluation.labels[row]:{width}}  {figures}   {_rates(rates[row], stages, in_percent)}"


def _rates(rates: np.ndarray, stages: list[int], in_percent: bool) -> str:
    """Execution rates (B,) as text, with a wider gap between stages."""
    if in_percent:
        cells = [f"{100 * rate:4.0f}" for rate in rates]
    else:
        cells = ["*" if rate == 1 else str(int(10 * rate)) for rate in rates]
    ends = np.cumsum(stages)
    return " ".join("".join(cells[end - count : end]) for count, end in zip(stages, ends, strict=True))


def _percent(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.1%}"
