"""The proof of an int8 graph: how often it decides and predicts as the network does, and that closed gates skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from artifact.agreement import Agreement, Run
from artifact.manifest import ALWAYS, INPUT_NAMES, INT8_NAME, NEVER, OUTPUT_NAMES, Int8Agreement
from artifact.preprocessing import Float32Array
from export.parity import ParityError, convolution_macs, count_onnx_macs, eager_runner, gating_of, open_session
from models.cascade import Network
from models.resnet import AdaptiveResNet

_BATCH = 8


def verify_int8(
    network: Network, run: Run, images: Float32Array, calibration_images: int, gate_threshold: float = 0.0
) -> Int8Agreement:
    """Compare what runs in int8 with the network it was exported from.

    Args:
        network: in evaluation mode.
        run: runs its int8 graph, or those of a cascade.
        images: (N, 3, H, W) preprocessed images, none of which it was calibrated on.
        calibration_images: how many it was calibrated on.
        gate_threshold: of the exported gates.

    Raises:
        ParityError: it agrees too rarely.
    """
    eager, gating = eager_runner(network, gate_threshold), gating_of(network, gate_threshold)
    agreement = Agreement()
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        offsets = np.zeros(len(batch), np.float32)
        agreement.compare("int8", eager(batch, offsets), run(batch, offsets), offsets, gating)
    if problem := agreement.low_precision_problem():
        raise ParityError(f"{INT8_NAME} is not right: {problem}")
    return Int8Agreement(
        images=len(images),
        calibration_images=calibration_images,
        gates_compared=agreement.gates + agreement.near_threshold,
        gates_equal=agreement.equal_gates,
        predictions_equal=agreement.equal_predictions,
    )


def check_skipping(network: AdaptiveResNet, path: Path, image: Float32Array) -> None:
    """Count the MACs of the convolutions that really run, with all gates open and with all closed.

    Args:
        image: (1, 3, H, W).

    Raises:
        ParityError: a closed gate does not save its block's convolutions.
    """
    for state, offset in (("open", ALWAYS), ("closed", NEVER)):
        expected = convolution_macs(network.config, offset == ALWAYS)
        counted = count_onnx_macs(path, image, np.array([offset], np.float32), op="QLinearConv", weights=3)
        if counted != expected:
            raise ParityError(f"{INT8_NAME} spends {counted} MACs with all gates {state}, expected {expected}")


def int8_runner(path: Path) -> Run:
    """Runs images one by one, since the graph takes one."""
    session = open_session(path, onnxruntime.SessionOptions())

    def run(images: Float32Array, offsets: Float32Array) -> tuple[Float32Array, Float32Array]:
        answers = []
        for row in range(len(images)):
            inputs = (images[row : row + 1], offsets[row : row + 1])
            answers.append(session.run(OUTPUT_NAMES, dict(zip(INPUT_NAMES, inputs, strict=True))))
        logits, margins = (np.concatenate(outputs) for outputs in zip(*answers, strict=True))
        return logits, margins

    return run
