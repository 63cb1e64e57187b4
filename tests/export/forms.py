"""The four forms of one network, each called the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from artifact.manifest import INPUT_NAMES, ONNX_NAME, TORCHSCRIPT_NAME
from artifact.preprocessing import Float32Array
from export.inference import InferenceNetwork
from export.onnx_graph import write_onnx
from export.parity import load_torchscript
from export.torchscript import write_torchscript
from models.resnet import AdaptiveResNet

Form = Callable[[Float32Array, Float32Array], tuple[Float32Array, Float32Array]]


class Exported:
    """A network and what export makes of it.

    Attributes:
        network: it was made from.
        serving: its serving form.
        folder: with model.onnx and model.ts.
        forms: each runs images (N, 3, H, W) with offsets (N,) and returns logits and margins.
    """

    def __init__(self, network: AdaptiveResNet, folder: Path, gate_threshold: float = 0.0) -> None:
        self.network = network
        self.gate_threshold = gate_threshold
        self.folder = folder
        self.serving = InferenceNetwork(network, gate_threshold)
        write_onnx(self.serving, list(network.blocks), network.config.input_size, folder / ONNX_NAME)
        write_torchscript(self.serving, folder / TORCHSCRIPT_NAME)
        self.forms = {
            "serving form": torch_form(self.serving),
            "TorchScript": torch_form(load_torchscript(folder / TORCHSCRIPT_NAME)),
            "ONNX": onnx_form(folder / ONNX_NAME),
        }

    @torch.inference_mode()
    def eager(self, images: Float32Array, offsets: Float32Array) -> tuple[Float32Array, Float32Array]:
        """What the trained network itself says."""
        shifted = torch.from_numpy(offsets - np.float32(self.gate_threshold))
        output = self.network(torch.from_numpy(images), shifted)
        return output.logits.numpy(), output.margins.numpy()

    def is_open(self, margins: Float32Array, offsets: Float32Array) -> np.ndarray:
        """Which gates are open, (N, G)."""
        return margins + offsets[:, None] > np.float32(self.gate_threshold)


def torch_form(module: torch.nn.Module) -> Form:
    @torch.inference_mode()
    def run(images: Float32Array, offsets: Float32Array) -> tuple[Float32Array, Float32Array]:
        logits, margins = module(torch.from_numpy(images), torch.from_numpy(offsets))
        return logits.numpy(), margins.numpy()

    return run


def onnx_form(path: Path) -> Form:
    session = onnx_session(path)

    def run(images: Float32Array, offsets: Float32Array) -> tuple[Float32Array, Float32Array]:
        logits, margins = session.run(None, dict(zip(INPUT_NAMES, (images, offsets), strict=True)))
        return logits, margins

    return run


def onnx_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it warns that the offset's default can be overridden, which is what it is for
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
