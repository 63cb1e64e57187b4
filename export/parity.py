"""The proof of an export: eager network, TorchScript and ONNX compared on images, and the skipping itself counted."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from artifact.agreement import LOGIT_TOLERANCE, MARGIN_TOLERANCE, Agreement, LogitsAndMargins, Run
from artifact.gating import Gating
from artifact.manifest import ALWAYS, INPUT_NAMES, NEVER, ONNX_NAME, TORCHSCRIPT_NAME, Verification
from artifact.preprocessing import Float32Array
from models.cascade import Network
from models.config import CascadeConfig, ModelConfig
from models.macs import count_macs
from models.structure import Structure

_BATCH = 8


class ParityError(RuntimeError):
    """The exported files do not do what the network does."""


def verify(network: Network, folder: Path, images: Float32Array, gate_threshold: float = 0.0) -> Verification:
    """Compare the files in `folder` with the network they were exported from.

    Args:
        network: in evaluation mode.
        folder: holds model.onnx and model.ts.
        images: (N, 3, H, W) preprocessed images.
        gate_threshold: of the exported gates.

    Raises:
        ParityError: gates, logits or control flow differ; the message says where.
    """
    runners = {"ONNX": onnx_runner(folder / ONNX_NAME), "TorchScript": _torchscript_runner(folder / TORCHSCRIPT_NAME)}
    eager = eager_runner(network, gate_threshold)
    agreement, gating = Agreement(), gating_of(network, gate_threshold)
    for scenario, batch, offsets in _scenarios(images):
        expected = eager(batch, offsets)
        for name, run in runners.items():
            agreement.compare(f"{name}, {scenario}", expected, run(batch, offsets), offsets, gating)
    for name, run in runners.items():
        _compare_batch_with_singles(agreement, name, run, images[:_BATCH], gating)
    if not agreement.problems and agreement.same_path < 0.5 * agreement.images:
        agreement.problems.append("most images have a margin so near its threshold that nothing could be compared")
    if agreement.problems:
        raise ParityError("; ".join(agreement.problems[:5]))
    check_control_flow(network, folder, images[:1])
    return Verification(
        images=len(images),
        margin_tolerance=MARGIN_TOLERANCE,
        logit_tolerance=LOGIT_TOLERANCE,
        gates_compared=agreement.gates,
        gates_within_tolerance=agreement.near_threshold,
        largest_margin_difference=agreement.margin_difference,
        largest_logit_difference=agreement.logit_difference,
    )


def check_control_flow(network: Network, folder: Path, image: Float32Array) -> None:
    """Count the MACs of the convolutions each runtime really runs: all gates open, all closed, and a mixed batch.

    Args:
        image: (1, 3, H, W).

    Raises:
        ParityError: a branch was lost, or a closed gate does not save its block's convolutions.
    """
    branches = sum(node.op_type == "If" for node in onnx.load(folder / ONNX_NAME, load_external_data=False).graph.node)
    gating = gating_of(network)
    # What is within a later network of a cascade is in its branch.
    expected_branches = np.count_nonzero(gating.within[gating.gated] < 0)
    if branches != expected_branches:
        raise ParityError(f"the ONNX graph has {branches} branches for {expected_branches} gated blocks")
    _, margins = eager_runner(network)(image, np.full(1, ALWAYS, np.float32))
    if (margin := np.abs(margins).max(initial=0.0)) >= ALWAYS:
        raise ParityError(
            f"a gate has a margin of {margin:.3g}, which no offset overcomes, as they end at {ALWAYS:g}: the training "
            "diverged, or never had all gates open"
        )
    macs = {offset: convolution_macs(network.config, offset == ALWAYS) for offset in (ALWAYS, NEVER)}
    for runtime, count in (("ONNX", _count_onnx), ("TorchScript", _count_torchscript)):
        for state, offsets in (
            ("all gates open", [ALWAYS]),
            ("all gates closed", [NEVER]),
            ("the gates of one image in three open", [NEVER, ALWAYS, NEVER]),
        ):
            batch = np.repeat(image, len(offsets), axis=0)
            counted = count(folder, batch, np.array(offsets, np.float32))
            expected = sum(macs[offset] for offset in offsets)
            if counted != expected:
                raise ParityError(f"{runtime} spends {counted} MACs with {state}, expected {expected}")


def gating_of(network: Network, gate_threshold: float = 0.0) -> Gating:
    """The gating of a network whose exported gates have this threshold."""
    return replace(Structure.of_config(network.config), gate_threshold=gate_threshold)


def convolution_macs(config: ModelConfig | CascadeConfig, opened: bool) -> int:
    """MACs of the convolutions that run for one image, with all gates open or all closed."""
    if isinstance(config, CascadeConfig):
        return sum(convolution_macs(each, opened) for each in (config.networks if opened else config.networks[:1]))
    macs, gating = count_macs(config), Structure.of_config(config)
    return macs.ungated - macs.classifier - (0 if opened else int(gating.skippable_macs[gating.gated].sum()))


def _scenarios(images: Float32Array) -> Iterator[tuple[str, Float32Array, Float32Array]]:
    """Batches with the gate offsets of their images: as trained, all open, all closed, mixed, and single images."""
    random = np.random.default_rng(0)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        mixed = random.choice([0.0, 0.5, -0.5, 2.0, -2.0, ALWAYS, NEVER], len(batch))
        for scenario, offsets in (
            ("gates as trained", np.zeros(len(batch))),
            ("mixed offsets", mixed),
            ("all gates open", np.full(len(batch), ALWAYS)),
            ("all gates closed", np.full(len(batch), NEVER)),
        ):
            yield scenario, batch, offsets.astype(np.float32)
        yield "a single image", batch[:1], np.zeros(1, np.float32)


def _compare_batch_with_singles(
    agreement: Agreement, name: str, run: Run, images: Float32Array, gating: Gating
) -> None:
    """An image must get the same answer whatever else is in its batch."""
    offsets = np.zeros(len(images), np.float32)
    singles = [run(images[i : i + 1], offsets[i : i + 1]) for i in range(len(images))]
    expected = (np.concatenate([single[0] for single in singles]), np.concatenate([single[1] for single in singles]))
    agreement.compare(f"{name}, batch against single", expected, run(images, offsets), offsets, gating)


def eager_runner(network: Network, gate_threshold: float = 0.0) -> Run:
    """Runs the network as it was trained."""

    @torch.inference_mode()
    def run(images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        output = network(torch.from_numpy(images), torch.from_numpy(offsets - np.float32(gate_threshold)))
        return output.logits.numpy(), output.margins.numpy()

    return run


def _torchscript_runner(path: Path) -> Run:
    network = load_torchscript(path)

    @torch.inference_mode()
    def run(images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        logits, margins = network(torch.from_numpy(images), torch.from_numpy(offsets))
        return logits.numpy(), margins.numpy()

    return run


def onnx_runner(path: Path) -> Run:
    session = open_session(path, onnxruntime.SessionOptions())

    def run(images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        logits, margins = session.run(None, dict(zip(INPUT_NAMES, (images, offsets), strict=True)))
        return logits, margins

    return run


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript file."""
    try:
        return torch.jit.load(str(path))
    except (RuntimeError, ValueError) as error:
        raise ParityError(f"{path.name} cannot be loaded: {error}") from error


def open_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open an ONNX file.

    Raises:
        ParityError: it cannot be opened.
    """
    options.log_severity_level = 3  # it warns that the offset's default can be overridden, which is what it is for
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no public base class
        raise ParityError(f"{path.name} cannot be opened: {error}") from error


def _count_onnx(folder: Path, image: Float32Array, offset: Float32Array) -> int:
    return count_onnx_macs(folder / ONNX_NAME, image, offset)


def count_onnx_macs(path: Path, images: Float32Array, offset: Float32Array, op: str = "Conv", weights: int = 1) -> int:
    """MACs of ONNX Runtime's convolutions, from its own profile, with optimisations off so that none is renamed.

    Args:
        path: of the graph.
        images: (N, 3, H, W).
        offset: (N,) gate offsets.
        op: name of the operator that convolves.
        weights: which of its inputs are the weights, (M, C, K, K).
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.add_session_config_entry("session.disable_prepacking", "1")  # prepacked weights are not in the profile
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = open_session(path, options)
        session.run(None, dict(zip(INPUT_NAMES, (images, offset), strict=True)))
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    convolutions = [kernel for kernel in kernels if kernel["op_name"] == op]
    return sum(
        _convolution_macs(kernel["input_type_shape"][weights], kernel["output_type_shape"][0])
        for kernel in convolutions
    )


def _convolution_macs(weights: dict[str, list[int]], output: dict[str, list[int]]) -> int:
    """MACs of one convolution from the profile's shapes by type: output elements times the weights each is made of."""
    (weight_shape,), (output_shape,) = weights.values(), output.values()
    return math.prod(output_shape) * math.prod(weight_shape[1:])


def _count_torchscript(folder: Path, image: Float32Array, offset: Float32Array) -> int:
    """MACs of PyTorch's convolutions, from its own counter, which takes a MAC for two operations."""
    run = _torchscript_runner(folder / TORCHSCRIPT_NAME)
    with FlopCounterMode(display=False) as counter:
        run(image, offset)
    counts: dict[Any, int] = counter.get_flop_counts()["Global"]
    return counts[torch.ops.aten.convolution] // 2
