"""From the engine's answer to what the client reads: predictions, the path taken, and what it cost."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from artifact.manifest import Manifest
from service.engine.worker import Answer
from service.schemas import (
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


def describe(manifest: Manifest, answer: Answer, top_k: int, graph: GraphDetail, total_s: float) -> Classification:
    """Describe one answer.

    Args:
        manifest: of the model that answered.
        answer: of the engine.
        top_k: predictions wanted; all classes where there are fewer.
        graph: how much of the path to tell.
        total_s: seconds since the request arrived.
    """
    return Classification(
        predictions=predictions(manifest.labels, answer, top_k),
        inference_graph=inference_graph(manifest, answer) if graph == "full" else None,
        layers=layers(manifest, answer) if graph != "none" else None,
        compute=Compute(macs=answer.macs, total_macs=manifest.total_macs, ratio=answer.macs / manifest.total_macs),
        model=ModelName(name=manifest.name, version=manifest.version),
        timing_ms=Timing(
            decode=_milliseconds(answer.decode_s),
            queue=_milliseconds(answer.queue_s),
            inference=_milliseconds(answer.inference_s),
            total=_milliseconds(total_s),
        ),
    )


def predictions(labels: tuple[str, ...], answer: Answer, top_k: int) -> list[Prediction]:
    """The `top_k` most probable classes, best first, by softmax."""
    logits = answer.logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max())
    probabilities = (exponentials / exponentials.sum()).tolist()
    best = np.argsort(-logits, kind="stable")[:top_k].tolist()
    return [Prediction(label=labels[i], index=i, probability=probabilities[i]) for i in best]


def inference_graph(manifest: Manifest, answer: Answer) -> InferenceGraph:
    """Every block with what its gate said, and the edges the features took."""
    margins = iter(answer.margins.tolist())
    blocks = []
    path = ["input", "stem"]
    for block, executed in zip(manifest.blocks, answer.executed.tolist(), strict=True):
        margin = next(margins) if block.gated else None
        blocks.append(
            BlockRun(
                name=block.name,
                stage=block.stage,
                executed=executed,
                gated=block.gated,
                margin=margin,
                gate_probability=None if margin is None else _sigmoid(margin),
                macs=block.macs,
            )
        )
        if executed:
            path.append(block.name)
        elif block.shortcut_macs:
            path.append(f"{block.name}.shortcut")
    path.append("classifier")
    edges = [Edge(source=source, target=target) for source, target in pairwise(path)]
    return InferenceGraph(blocks=blocks, edges=edges)


def layers(manifest: Manifest, answer: Answer) -> Layers:
    """How many blocks ran, and the names of those that did not."""
    executed = answer.executed.tolist()
    skipped = [block.name for block, ran in zip(manifest.blocks, executed, strict=True) if not ran]
    return Layers(
        executed=len(executed) - len(skipped), skipped=len(skipped), total=len(executed), skipped_names=skipped
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
