"""From the engine's answer to what the client reads: predictions, the path taken, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from artifact.manifest import Block, Manifest
from service.classify.budgets import Plan
from service.classify.schemas import (
    BlockRun,
    Classification,
    Compute,
    Edge,
    GraphDetail,
    InferenceGraph,
    Layers,
    ModelName,
    Prediction,
    Timing,
)
from service.engine.job import Answer
from service.observability.record import milliseconds


def describe(
    manifest: Manifest, answer: Answer, plan: Plan, top_k: int, graph: GraphDetail, total_s: float
) -> Classification:
    """Describe one answer.

    Args:
        manifest: of the model that answered.
        answer: of the engine.
        plan: that it was run with.
        top_k: predictions wanted; all classes where there are fewer.
        graph: how much of the path to tell.
        total_s: seconds since the request arrived.
    """
    return Classification(
        predictions=predictions(manifest.labels, answer, top_k),
        inference_graph=inference_graph(manifest, answer) if graph == "full" else None,
        layers=layers(manifest, answer) if graph != "none" else None,
        compute=Compute(
            macs=answer.macs,
            total_macs=manifest.total_macs,
            ratio=answer.macs / manifest.total_macs,
            budget=plan.wish.budget,
            max_latency_ms=plan.wish.max_latency_ms,
            gate_offset=plan.gate_offset,
            degraded=plan.degraded,
        ),
        model=ModelName(name=manifest.name, version=manifest.version),
        timing_ms=Timing(
            decode=milliseconds(answer.decode_s),
            queue=milliseconds(answer.queue_s),
            inference=milliseconds(answer.inference_s),
            total=milliseconds(total_s),
        ),
    )


def predictions(labels: tuple[str, ...], answer: Answer, top_k: int) -> list[Prediction]:
    """The `top_k` most probable classes, best first."""
    best = best_classes(answer.logits, top_k)
    return [Prediction(label=labels[index], index=index, probability=probability) for index, probability in best]


def best_classes(logits: Sequence[float], top_k: int) -> list[tuple[int, float]]:
    """Index and probability, by softmax, of the `top_k` most probable classes, best first."""
    # In plain Python: for ten classes NumPy takes several times as long.
    largest = max(logits)
    exponentials = [math.exp(logit - largest) for logit in logits]
    total = sum(exponentials)
    best = sorted(range(len(logits)), key=logits.__getitem__, reverse=True)[:top_k]
    return [(index, exponentials[index] / total) for index in best]


def inference_graph(manifest: Manifest, answer: Answer) -> InferenceGraph:
    """Every block with what its gate said, and the edges the features took."""
    told = iter(gates(manifest, answer))
    blocks = []
    for block, ran in zip(manifest.blocks, answer.executed, strict=True):
        blocks.append(block_run(block, ran, *(next(told) if block.gated else (None, None))))
    edges = [Edge(source=source, target=target) for source, target in connections(manifest.blocks, answer.executed)]
    return InferenceGraph(blocks=blocks, edges=edges)


def gates(manifest: Manifest, answer: Answer) -> Iterator[tuple[float | None, float | None]]:
    """Margin and probability of every gate, in order; nothing of those in a network that was not asked."""
    for margin, network in zip(answer.margins, manifest.networks_of_gates, strict=True):
        yield (margin, sigmoid(margin)) if network < 0 or answer.executed[network] else (None, None)


def block_run(block: Block, executed: bool, margin: float | None, gate_probability: float | None) -> BlockRun:
    """What happened to one block."""
    return BlockRun(
        name=block.name,
        kind=block.kind,
        stage=block.stage,
        executed=executed,
        gated=block.gated,
        margin=margin,
        gate_probability=gate_probability,
        macs=block.macs,
    )


def connections(blocks: Iterable[Block], executed: Iterable[bool]) -> Iterator[tuple[str, str]]:
    """The connections that features took, in order, by the nodes at their ends."""
    yield "input", "stem"
    last = "stem"
    for block, ran in zip(blocks, executed, strict=True):
        if block.kind == "network":  # it begins with the image again
            yield last, "classifier"
            if not ran:
                return
            last = "input"
        if ran or block.shortcut_macs:
            node = block.name if ran else f"{block.name}.shortcut"
            yield last, node
            last = node
    yield last, "classifier"


def layers(manifest: Manifest, answer: Answer) -> Layers:
    """How many blocks ran, and the names of those that did not."""
    return layers_of(manifest.blocks, answer.executed)


def layers_of(blocks: Sequence[Block], executed: Sequence[bool]) -> Layers:
    """The edges between these blocks, given which of them ran."""
    skipped = [block.name for block, ran in zip(blocks, executed, strict=True) if not ran]
    return Layers(
        executed=len(executed) - len(skipped), skipped=len(skipped), total=len(executed), skipped_names=skipped
    )


def sigmoid(x: float) -> float:
    """The probability of a margin."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
