"""What came of a request's images, as the tensors that the protocol answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from service.classify.request import Classified
from service.engine.job import Answer
from service.errors import ImageFailed

Array = np.ndarray[Any, Any]
DATATYPES = {"f": "FP32", "b": "BOOL", "i": "INT64"}
"""Of the protocol, by NumPy's kinds as far as they are answered."""


def _logits(answers: Sequence[Answer]) -> Array:
    return np.array([answer.logits for answer in answers], "<f4")


def _probabilities(answers: Sequence[Answer]) -> Array:
    logits = np.array([answer.logits for answer in answers], np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = (weights / weights.sum(axis=1, keepdims=True)).astype("<f4")
    return shares


_OUTPUTS: Mapping[str, Callable[[Sequence[Answer]], Array]] = {
    "logits": _logits,
    "probabilities": _probabilities,
    "margins": lambda answers: np.array([answer.margins for answer in answers], "<f4"),
    "executed": lambda answers: np.array([answer.executed for answer in answers], np.bool_),
    "macs": lambda answers: np.array([answer.macs for answer in answers], "<i8"),
}


def output_tensors(classified: Sequence[Classified], names: Sequence[str]) -> dict[str, Array]:
    """The outputs of these names, each with a row for every image; see `outputs_of`.

    Raises:
        ImageFailed: something went wrong with one of them.
    """
    answers = []
    for index, (_, _, outcome) in enumerate(classified):
        if isinstance(outcome, Exception):
            raise ImageFailed(index, outcome) from outcome
        answers.append(outcome)
    return {name: _OUTPUTS[name](answers) for name in names}
