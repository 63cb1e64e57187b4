"""The JSON of an answer, written without making an object of it first.

Of an answer nearly everything is known before: a block that ran reads the same every time, but for its gate's margin.
So every piece is encoded once, from the same functions and classes that describe an answer elsewhere, with a hole for
each number.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

from artifact.manifest import Block, Manifest
from service.classify.budgets import Plan
from service.classify.graph import best_classes, block_run, connections, gates, layers_of
from service.classify.schemas import (
    Classification,
    Compute,
    Edge,
    GraphDetail,
    InferenceGraph,
    ModelName,
    Prediction,
    Timing,
)
from service.engine.job import Answer
from service.observability.record import milliseconds

# JSON has no such byte: in a string it is escaped.
_HOLE: Any = orjson.Fragment(b"\0")
# Paths whose JSON is kept; few are taken often.
_MOST_PATHS = 1024


class AnswerWriter:
    """Writes what `inference_graph.describe` describes.

    Args:
        manifest: of the model that answers.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._labels = [
            _pattern(Prediction(label=label, index=index, probability=_HOLE))
            for index, label in enumerate(manifest.labels)
        ]
        # By block, and by whether it ran.
        self._blocks = [(_block(block, False), _block(block, True)) for block in manifest.blocks]
        self._whole = {graph: self._classification(graph) for graph in ("full", "summary", "none")}
        self._pattern_of = lru_cache(_MOST_PATHS)(self._make_pattern)

    def write(self, answer: Answer, plan: Plan, top_k: int, graph: GraphDetail, total_s: float) -> bytes:
        """The JSON of one answer; the arguments are those of `describe`."""
        best = best_classes(answer.logits, top_k)
        numbers: list[float | None] = [probability for _, probability in best]
        if graph == "full":
            for gate in gates(self._manifest, answer):
                numbers += gate
        numbers += (
            answer.macs,
            answer.macs / self._manifest.total_macs,
            plan.wish.budget,
            plan.wish.max_latency_ms,
            plan.gate_offset,
            plan.degraded,
            milliseconds(answer.decode_s),
            milliseconds(answer.queue_s),
            milliseconds(answer.inference_s),
            milliseconds(total_s),
        )
        pattern = self._pattern_of(answer.executed, graph)
        told = orjson.dumps(numbers)[1:-1].split(b",")
        count = len(best)
        guesses = b",".join([self._labels[best[place][0]] % told[place] for place in range(count)])
        return pattern % (guesses, *told[count:])

    def _make_pattern(self, executed: tuple[bool, ...], graph: GraphDetail) -> bytes:
        """An answer whose image took this path, with holes for its guesses and its numbers."""
        if graph == "none":
            return self._whole[graph]
        told_layers = _pattern(layers_of(self._manifest.blocks, executed))
        if graph == "summary":
            return _filled(self._whole[graph], [b"%b", told_layers, *_LAST])
        blocks = b",".join([pair[it] for pair, it in zip(self._blocks, executed, strict=True)])
        edges = b",".join([_edge(*pair) for pair in connections(self._manifest.blocks, executed)])
        return _filled(self._whole[graph], [b"%b", blocks, edges, told_layers, *_LAST])

    def _classification(self, graph: GraphDetail) -> bytes:
        return _pattern(
            Classification(
                predictions=[_HOLE],
                inference_graph=InferenceGraph(blocks=[_HOLE], edges=[_HOLE]) if graph == "full" else None,
                layers=_HOLE if graph != "none" else None,
                compute=Compute(
                    macs=_HOLE,
                    total_macs=self._manifest.total_macs,
                    ratio=_HOLE,
                    budget=_HOLE,
                    max_latency_ms=_HOLE,
                    gate_offset=_HOLE,
                    degraded=_HOLE,
                ),
                model=ModelName(name=self._manifest.name, version=self._manifest.version),
                timing_ms=Timing(decode=_HOLE, queue=_HOLE, inference=_HOLE, total=_HOLE),
            )
        )


# The holes after an answer's layers.
_LAST = [b"%b"] * 10


def _block(block: Block, executed: bool) -> bytes:
    hole = _HOLE if block.gated else None
    return _pattern(block_run(block, executed, hole, hole))


@lru_cache(4096)
def _edge(source: str, target: str) -> bytes:
    return _pattern(Edge(source=source, target=target))


def _pattern(described: object) -> bytes:
    """JSON as the left side of `%`."""
    return orjson.dumps(described).replace(b"%", b"%%").replace(b"\0", b"%b")


def _filled(pattern: bytes, pieces: Iterable[bytes]) -> bytes:
    """Put patterns into the holes of a pattern; what it has of `%` stays as it is."""
    return pattern.replace(b"%%", b"%%%%") % tuple(pieces)
