"""What came of a request's images, as the tensors that the protocol answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact.manifest import Manifest
from service.classify.request import Classified
from service.engine.job import Answer
from service.errors import ImageFailed
from service.protocol.request import Inference

Array = np.ndarray[Any, Any]
DATATYPES = {"f": "FP32", "b": "BOOL", "i": "INT64"}
"""Of the protocol, by NumPy's kinds as far as they are answered."""
DEGRADED = "degraded"
"""The parameter of an answer that says so."""


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


@dataclass(frozen=True, slots=True)
class InferenceAnswer:
    """What is answered to a request.

    Attributes:
        id: of the request; empty where it has none.
        model, version: that answered.
        outputs: by name, each with a row for every image; see `outputs_of`.
        degraded: whether an image had less compute than was asked for, because the service had too much to do.
    """

    id: str
    model: str
    version: str
    outputs: Mapping[str, Array]
    degraded: bool


def answer_of(inference: Inference, manifest: Manifest, classified: Sequence[Classified]) -> InferenceAnswer:
    """The answer to a request, of what came of its images.

    Raises:
        ImageFailed: something went wrong with one of them.
    """
    answers = []
    for index, (_, _, outcome) in enumerate(classified):
        if isinstance(outcome, Exception):
            raise ImageFailed(index, outcome) from outcome
        answers.append(outcome)
    outputs = {name: _OUTPUTS[name](answers) for name in inference.outputs}
    degraded = any(plan.degraded for _, plan, _ in classified)
    return InferenceAnswer(inference.request.id, manifest.name, manifest.version, outputs, degraded)
