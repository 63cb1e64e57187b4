"""Pictures of an evaluation: which blocks run for which class, what compute and accuracy do, and what is confused."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from models.evaluation import Evaluation
from models.intervals import FEWEST_IMAGES, wilson_interval
from models.palette import BLUE, GREY, VERMILION, remove_frame

MOST_CLASSES = 40
_MOST_BINS = 30
_DPI = 150


def write_pictures(evaluation: Evaluation, folder: Path, name: str) -> list[Path]:
    """Draw the pictures of the evaluation of the network called `name` into `folder`; return the paths of the PNGs.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "execution-rates.png": draw_execution_rates(evaluation, name),
        "compute-spread.png": draw_compute_spread(evaluation, name),
        "confusions.png": draw_confusions(evaluation, name),
    }
    for file, figure in pictures.items():
        figure.savefig(folder / file, dpi=_DPI)
    return [folder / file for file in pictures]


def shown_classes(evaluation: Evaluation, most: int = MOST_CLASSES) -> np.ndarray:
    """Indices of the classes that have images, from least to most compute.

    Where there are more than `most`, half as many with the least compute and half as many with the most.
    """
    shares = evaluation.class_mac_shares
    order = np.argsort(shares, kind="stable")
    order = order[~np.isnan(shares[order])]
    return order if len(order) <= most else np.concatenate([order[: most // 2], order[-(most // 2) :]])


def draw_execution_rates(evaluation: Evaluation, name: str) -> Figure:
    """A heat map of how often each block (columns) ran for the images of each class (rows)."""
    rows = shown_classes(evaluation)
    rates = evaluation.class_rates[rows]  # (rows, B)
    cell_width, cell_height = (0.5, 0.36) if rates.shape[1] <= 24 else (0.24, 0.3)
    size = (max(6.5, 3.4 + cell_width * rates.shape[1]), max(3.4, 1.7 + cell_height * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    figure.suptitle(f"How often each block of {name} runs", weight="bold")
    axes.set_title(_which_classes(evaluation, len(rows)), color=GREY, fontsize="medium", pad=10)
    axes.set_yticks(range(len(rows)), [evaluation.labels[row] for row in rows])
    axes.set_ylabel("class")
    _name_blocks(axes, evaluation.block_names)
    if len(rows) < len(np.unique(evaluation.classes)):
        axes.axhline(len(rows) / 2 - 0.5, color="white", linewidth=4)
    if rates.shape[1] <= 24:
        _write_values(axes, rates)
    shares = axes.secondary_yaxis("right")
    shares.set_yticks(range(len(rows)), [f"{share:.1%}" for share in evaluation.class_mac_shares[rows]])
    shares.tick_params(length=0)
    shares.spines[:].set_visible(False)
    shares.set_ylabel("mean MACs (% of the network without gates)", labelpad=8)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1), pad=0.03, aspect=30)
    bar.set_label("execution rate (% of the class's images)")
    bar.outline.set_visible(False)
    remove_frame(axes)
    return figure


def draw_compute_spread(evaluation: Evaluation, name: str) -> Figure:
    """How many images cost how much (bars), and how many of those are classified correctly (points)."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    edges = _bin_edges(evaluation.mac_share)
    number = np.digitize(evaluation.mac_share, edges) - 1  # (N,) each image's bin
    counts = np.bincount(number, minlength=len(edges) - 1)
    centres, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    axes.bar(centres, counts, width * 0.92, color=BLUE, label="images")
    mean = float(evaluation.mac_share.mean())
    axes.axvline(mean, color=GREY, linestyle=":", label=f"mean compute, {mean:.1%}")
    figure.suptitle(f"What each image costs {name}, and how often it is right", weight="bold")
    axes.set_title(f"{len(evaluation.classes):,} images", color=GREY, fontsize="medium")
    axes.set_xlabel("MACs spent on an image (% of the network without gates)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("images")
    axes.margins(x=0.02)
    correct = np.bincount(number, evaluation.correct, minlength=len(counts))
    drawn = counts >= FEWEST_IMAGES
    right = axes.twinx()
    _draw_accuracy(right, centres[drawn], correct[drawn], counts[drawn])
    overall = f"accuracy of all images, {evaluation.accuracy:.1%}"
    right.axhline(evaluation.accuracy, color=VERMILION, linestyle="--", linewidth=1, label=overall)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    remove_frame(axes)
    remove_frame(right)
    return figure


def draw_confusions(evaluation: Evaluation, name: str) -> Figure:
    """A heat map of which classes (rows) are taken for which (columns), in shares of each row's images."""
    shown = _confused_classes(evaluation.confusions)
    counts = evaluation.confusions[np.ix_(shown, shown)]
    shares = counts / np.maximum(1, evaluation.confusions[shown].sum(axis=1))[:, None]
    side = max(4.8, 2.4 + 0.36 * len(shown))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    figure.suptitle(f"What {name} takes for what", weight="bold")
    every = len(shown) == len(evaluation.labels)
    title = f"{len(evaluation.classes):,} images" if every else f"the {len(shown)} classes confused most often"
    axes.set_title(title, color=GREY, fontsize="medium", pad=10)
    labels = [evaluation.labels[index] for index in shown]
    axes.set_yticks(range(len(shown)), labels)
    axes.set_xticks(range(len(shown)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("class")
    axes.set_xlabel("prediction")
    if len(shown) <= 24:
        _write_values(axes, shares)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1), pad=0.03, aspect=30)
    bar.set_label("share of the class's images (%)")
    bar.outline.set_visible(False)
    remove_frame(axes)
    return figure


def _confused_classes(confusions: np.ndarray) -> np.ndarray:
    """Indices of all classes, or of those with the most confusions where there are too many to show."""
    wrong = confusions - np.diag(np.diag(confusions))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return np.sort(order[:MOST_CLASSES])


def _draw_accuracy(axes: Axes, centres: np.ndarray, correct: np.ndarray, counts: np.ndarray) -> None:
    """Accuracy of each bin with its 95% confidence interval, on an axis of its own."""
    low, high = wilson_interval(correct, counts)
    accuracy = correct / counts
    axes.errorbar(
        centres,
        accuracy,
        yerr=[accuracy - low, high - accuracy],
        color=VERMILION,
        marker="o",
        markersize=4,
        linewidth=1.5,
        elinewidth=1,
        capsize=2,
        label=f"accuracy with its 95% interval, bins of {FEWEST_IMAGES} images or more",
    )
    lowest = float(low.min(initial=1))
    axes.set_ylim(max(0.0, np.floor(lowest * 10) / 10 - 0.1), 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("accuracy (%)", color=VERMILION)
    axes.tick_params(axis="y", colors=VERMILION)


def _bin_edges(shares: np.ndarray) -> np.ndarray:
    """Edges of equally wide bins around all shares, at round percentages."""
    low, high = float(shares.min()), float(shares.max())
    width = next((width for width in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05) if high - low < width * _MOST_BINS), 0.1)
    first, last = np.floor(low / width + 1e-9), np.floor(high / width + 1e-9) + 1
    # Shares that are round percentages but for rounding errors belong above the edge.
    return np.arange(first, last + 1) * width - 1e-9


def _which_classes(evaluation: Evaluation, shown: int) -> str:
    """Which classes the rows are, for the title."""
    classes = len(np.unique(evaluation.classes))
    if shown == classes:
        return "classes from least to most compute"
    return f"the {shown // 2} classes with the least and the {shown // 2} with the most compute, of {classes}"


def _name_blocks(axes: Axes, names: tuple[str, ...]) -> None:
    """Number the columns within their stage below the map, and name and part the stages above it."""
    stages = [(stage, len(list(blocks))) for stage, blocks in groupby(names, lambda name: name.split("_")[0])]
    starts = np.cumsum([0, *(count for _, count in stages)])
    axes.set_xticks(range(len(names)), [name.split("block")[-1] for name in names])
    if len(names) > 24:
        axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("block of the stage")
    above = axes.secondary_xaxis("top")
    above.set_xticks((starts[:-1] + starts[1:] - 1) / 2, [stage.replace("stage", "stage ") for stage, _ in stages])
    above.tick_params(length=0)
    above.spines[:].set_visible(False)
    for start in starts[1:-1]:
        axes.axvline(start - 0.5, color="white", linewidth=3)


def _write_values(axes: Axes, rates: np.ndarray) -> None:
    """Write each rate into its cell, in percent, in whichever of black and white stands out."""
    for (row, column), rate in np.ndenumerate(rates):
        colour = "#111111" if rate > 0.55 else "white"
        axes.text(column, row, f"{100 * rate:.0f}", ha="center", va="center", color=colour, fontsize=8)
