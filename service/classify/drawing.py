"""An answer drawn in the terminal: the prediction, and the path through the network as a row of boxes."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import groupby

from service.classify.schemas import BlockRun, Classification

_RUN, _SKIPPED, _ALWAYS = "■", "□", "▣"
_COLOURS = {_RUN: "\x1b[32m", _SKIPPED: "\x1b[90m", _ALWAYS: "\x1b[36m"}
_RESET = "\x1b[0m"
_PLAIN = {_RUN: "#", _SKIPPED: ".", _ALWAYS: "="}

LEGEND = (
    f"{_RUN} gate open, block executed   {_SKIPPED} gate closed, block skipped   {_ALWAYS} no gate, always executed"
)


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _PLAIN.get(error.object[error.start], "?"), error.start + 1


codecs.register_error(REPLACING := "service.classify.drawing", _replace)
"""How to deal with what an output cannot show, for its `errors`: boxes in ASCII, a question mark for all else."""


def draw(name: str, answer: Classification, colour: bool) -> str:
    """Several lines about one image.

    Args:
        name: of the image.
        answer: with the full graph.
        colour: whether the terminal shows ANSI colours.
    """
    return "\n".join(_lines(name, answer, colour))


def _lines(name: str, answer: Classification, colour: bool) -> Iterator[str]:
    assert answer.inference_graph is not None
    assert answer.layers is not None
    guesses = "   ".join(f"{guess.label} {guess.probability:.1%}" for guess in answer.predictions)
    yield f"{name}: {guesses}"
    for stage, blocks in groupby(answer.inference_graph.blocks, key=lambda block: block["stage"]):
        yield f"  stage {stage}  " + " ".join(_box(block, colour) for block in blocks)
    compute, layers = answer.compute, answer.layers
    yield (
        f"  {layers.executed} of {layers.total} blocks executed, {compute.ratio:.0%} of {compute.total_macs / 1e6:.1f} "
        f"million multiply-accumulates, {answer.timing_ms.inference:.1f} ms"
    )


def _box(block: BlockRun, colour: bool) -> str:
    box = _SKIPPED if not block["executed"] else _RUN if block["gated"] else _ALWAYS
    return f"{_COLOURS[box]}{box}{_RESET}" if colour else box
