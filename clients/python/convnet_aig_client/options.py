"""What a caller can ask for besides the answer itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict
from urllib.parse import quote

GraphDetail = Literal["full", "summary", "none"]
Degrade = Literal["allow", "never"]


class Parameters(TypedDict, total=False):
    """What goes into the query."""

    top_k: int | None
    graph: GraphDetail | None
    max_latency_ms: float | None
    degrade: Degrade | None


class _Shared(Parameters, total=False):
    model: str | None
    version: str | None
    timeout: float | None


class Options(_Shared, total=False):
    """How to classify an image. What is left out or None is as the service or the client has it.

    Keys:
        model: that answers; the default model otherwise.
        version: of that model; the newest otherwise.
        top_k: how many predictions the answer has, best first, from 1 to 1000.
        graph: "full" for every block and edge, "summary" for the counts and names of layers, "none" for neither.
        budget: largest share of the multiply-accumulates to spend, above 0 and at most 1.
        max_latency_ms: spend no more than what lets inference end so many milliseconds after the request's arrival.
        degrade: "never" if the service may not spend less than asked for under overload.
        timeout: seconds until the caller has an answer or an error, all attempts together.
    """

    budget: float | None


class BatchOptions(_Shared, total=False):
    """How to classify a batch: `Options`, with one budget for all images or one for each."""

    budget: float | Sequence[float] | None


def path_of(model: str | None, version: str | None) -> str:
    """The path of a version of a model; empty for the default model.

    Raises:
        ValueError: there is a version, but no model.
    """
    if model is None:
        if version is not None:
            raise ValueError("a version needs the name of its model")
        return ""
    of_version = "" if version is None else f"/versions/{quote(version, safe='')}"
    return f"/models/{quote(model, safe='')}{of_version}"


def query_of(
    *,
    top_k: int | None = None,
    graph: GraphDetail | None = None,
    budget: float | None = None,
    max_latency_ms: float | None = None,
    degrade: Degrade | None = None,
) -> dict[str, str]:
    """The query, without what was not asked for."""
    asked = {"top_k": top_k, "graph": graph, "budget": budget, "max_latency_ms": max_latency_ms, "degrade": degrade}
    return {name: str(value) for name, value in asked.items() if value is not None}
