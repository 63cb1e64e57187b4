"""A network's graphs on the device at several shares of open gates, in turns with ungated rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from bench.gpu.networks import mac_ratio, offset_for, opened_gates, phased_images, random_network
from bench.gpu.planned import Planned
from bench.gpu.rivals import Missing, cudnn_graph, onnx_runtime, torch_compiled
from bench.gpu.turns import Contender, in_turns
from models.config import ModelConfig
from service.engine.runtimes.cuda.device import Device
from service.engine.runtimes.cuda.image_plan import IMAGE_CHANNELS, ImagePlan
from service.engine.runtimes.cuda.list_plan import IMAGE_CHANNELS as LIST_CHANNELS
from service.engine.runtimes.cuda.list_plan import ListPlan
from service.engine.runtimes.cuda.network import Network
from service.engine.runtimes.cuda.plan import ElementType, Plan
from service.engine.runtimes.cuda.runtime import Compile
from service.engine.runtimes.portable_graph import UnknownGraph

OPEN_SHARES = (1.0, 0.8, 0.6, 0.4)
Rival = Callable[[Network, Any], Contender]
RIVALS: Mapping[str, Rival] = {
    "cuDNN, CUDA graph": cudnn_graph,
    "ONNX Runtime, CUDA graph": partial(onnx_runtime, kind="onnxruntime"),
}
SLOW_RIVALS: Mapping[str, Rival] = {
    "torch.compile": torch_compiled,
    "TensorRT, CUDA graph": partial(onnx_runtime, kind="tensorrt"),
}


def plans(
    config: ModelConfig, element_type: ElementType, largest: int, shared_bytes: int, processors: int
) -> Iterator[tuple[str, Network, Plan]]:
    """All plans that there are for a preset, with random weights."""
    common = config.preprocessing, 0.0, element_type, largest
    network = random_network(config, LIST_CHANNELS)
    yield "lists", network, ListPlan(network, *common, shared_bytes)
    with suppress(UnknownGraph):
        network = random_network(config, IMAGE_CHANNELS)
        yield "images", network, ImagePlan(network, *common, processors)


def measure(
    config: ModelConfig,
    batch: int,
    device: Device,
    compiled: Compile,
    rivals: Mapping[str, Rival] = RIVALS,
    shares: Sequence[float] = OPEN_SHARES,
    rounds: int = 7,
) -> dict[str, Any]:
    """Time all plans at these shares of open gates, and the rivals.

    Returns:
        gated: a row for each plan and share; ungated: seconds of each rival; left_out: why others are not there.
    """
    images = phased_images(batch, config.input_size)
    contenders: dict[str, Contender] = {}
    rows: list[dict[str, Any]] = []
    for plan_name, network, plan in plans(config, "fp16", batch, device.shared_bytes, device.processors):
        gates, classes = network.gates, len(network.classifier_bias)
        planned = Planned(device, plan, classes, gates, compiled, batch)
        for share in shares:
            offsets = np.full(batch, offset_for(share), np.float32)
            planned.give(images, offsets)
            planned.enqueue()
            planned.wait()
            logits, margins = planned.answers()
            opened = opened_gates(margins, share)
            row = {"plan": plan_name, "asked": share, "open": float(opened.mean())}
            rows.append(row | {"mac_ratio": mac_ratio(network, opened), "finite": bool(np.isfinite(logits).all())})
            prepare = partial(planned.offset, offsets)
            contenders[f"{plan_name} {share}"] = Contender(planned.enqueue, planned.wait, prepare)
    ungated, left_out = _opened(rivals, config, images)
    timings = in_turns(contenders | ungated, rounds)
    for row in rows:
        row |= asdict(timings[f"{row['plan']} {row['asked']}"])
    return {
        "network": config.name,
        "batch": batch,
        "gated": rows,
        "ungated": {name: asdict(timings[name]) for name in ungated},
        "left_out": left_out,
    }


def measure_rivals(config: ModelConfig, batch: int, rivals: Mapping[str, Rival] = SLOW_RIVALS) -> dict[str, Any]:
    """Time rivals alone, which take long to get ready."""
    ungated, left_out = _opened(rivals, config, phased_images(batch, config.input_size))
    timings = in_turns(ungated)
    told = {name: asdict(timing) for name, timing in timings.items()}
    return {"network": config.name, "batch": batch, "gated": [], "ungated": told, "left_out": left_out}


def _opened(
    rivals: Mapping[str, Rival], config: ModelConfig, images: Any
) -> tuple[dict[str, Contender], dict[str, str]]:
    network = random_network(config, LIST_CHANNELS)
    opened, left_out = {}, {}
    for name, rival in rivals.items():
        try:
            opened[name] = rival(network, images)
        except Missing as error:
            left_out[name] = str(error)
        except Exception as error:  # whatever a library raises: the others are measured all the same
            left_out[name] = f"{type(error).__name__}: {error}"[:300]
    return opened, left_out
