"""Images of a class, small enough to be kept in the page, with the paths they took."""

from __future__ import annotations

import base64
import io
from itertools import groupby

import numpy as np
from PIL import Image

from artifact.preprocessing import UInt8Array
from models.answers import Answers, Images
from models.report.section import Gallery, Thumbnail
from models.report.wording import counted

_EACH = 3
_MOST_CLASSES = 12
_LARGEST_SIDE = 64  # pixels


def draw_gallery(
    title: str, kinds: tuple[str, str], images: Images, answers: Answers, order: np.ndarray, shown: bool
) -> Gallery:
    """The first and the last images of every class by some order of all images.

    Args:
        kinds: what the first and what the last ones are.
        order: (N,) positions of all images.
        shown: whether the images themselves are kept in the page.
    """
    evaluation = answers.evaluation
    present = np.unique(evaluation.classes)
    rows = []
    for index in present[:_MOST_CLASSES]:
        members = order[evaluation.classes[order] == index]
        each = min(_EACH, len(members) // 2)
        first, last = members[:each], members[len(members) - each :][::-1]
        sides = [
            tuple(_thumbnail(int(position), images, answers, shown) for position in side) for side in (first, last)
        ]
        rows.append((evaluation.labels[index], sides[0], sides[1]))
    if len(present) > _MOST_CLASSES:
        title += f" (the first {_MOST_CLASSES} of {len(present)} classes)"
    return Gallery(title, kinds, tuple(rows))


def _thumbnail(position: int, images: Images, answers: Answers, shown: bool) -> Thumbnail:
    evaluation = answers.evaluation
    executed = evaluation.executed[position]
    predicted, true = int(evaluation.guesses.predicted[position]), int(evaluation.classes[position])
    said = "right" if predicted == true else f"taken for {evaluation.labels[predicted]}"
    return Thumbnail(
        source=_data_uri(images.pixels(np.array([position]))[0]) if shown else None,
        name=images.name(position),
        path=_by_stage(executed, evaluation.block_names),
        verdict=f"{counted(int(executed.sum()), 'block')}, {said}",
        correct=predicted == true,
    )


def _by_stage(executed: np.ndarray, block_names: tuple[str, ...]) -> tuple[tuple[bool, ...], ...]:
    pairs = zip(block_names, executed.tolist(), strict=True)
    stages = groupby(pairs, lambda pair: pair[0].split("_")[0])
    return tuple(tuple(ran for _, ran in blocks) for _, blocks in stages)


def _data_uri(pixels: UInt8Array) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
