"""Networks for measuring speed: random weights, and gates of which any share can be opened by one offset."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from artifact.manifest import INT8_NAME, file_digest, read_manifest, write_manifest
from artifact.preprocessing import Float32Array
from export.artifact_writer import write_artifact
from export.calibration import calibrate
from export.inference import InferenceNetwork
from export.int8_graph import write_int8
from models.checkpoint import Checkpoint
from models.config import preset
from models.gate import Gate
from models.resnet import AdaptiveResNet

# Multiples of the golden ratio's fraction fill the unit interval evenly whatever their number, so whichever share of
# the gates is open, the open ones are spread over the whole depth of the network.
_GOLDEN = 0.6180339887498949


def build_artifact(preset_name: str, out: Path, gated: bool = True, open_share: float | None = None) -> Path:
    """Export a network with random weights and calibrated batch norms to `out`; nothing is done where it exists.

    The margins of a gate are nearly the same for every image: with `offset_for` any share of the gates is opened.

    Args:
        preset_name: of the network.
        out: folder of the artifact.
        gated: whether it has gates.
        open_share: of the gates; fixed in the artifact, by its threshold, for those who cannot give an offset.
    """
    if out.exists():
        return out
    torch.manual_seed(0)
    config = preset(preset_name)
    network = AdaptiveResNet(config if gated else config.without_gates())
    images = torch.from_numpy(random_images(16, config.input_size))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = None  # running statistics are the plain mean of the passes below
        for _ in range(2):
            network(images)
        gates = [module for module in network.modules() if isinstance(module, Gate)]
        for position, gate in enumerate(gates):
            gate.fc2.bias.copy_(torch.tensor([0.0, (position * _GOLDEN) % 1]))
    checkpoint = Checkpoint(network.config, network.state_dict())
    digest = hashlib.sha256(preset_name.encode()).hexdigest()
    threshold = 0.0
    if open_share is not None:
        with torch.no_grad():
            threshold = -offset_for(network.eval()(images[:1]).margins[0].numpy(), open_share)
    write_artifact(checkpoint, digest, out, images[:4].numpy(), gate_threshold=threshold, generated_images=True)
    _add_int8(out, checkpoint, images.numpy(), threshold)
    return out


def _add_int8(folder: Path, checkpoint: Checkpoint, images: Float32Array, gate_threshold: float) -> None:
    """Add an int8 graph without the proof of agreement, which random weights need not pass: only its speed is asked."""
    network = checkpoint.network()
    assert isinstance(network, AdaptiveResNet)
    inference, names = InferenceNetwork(network, gate_threshold), list(network.blocks)
    quantisations = calibrate(inference, names, images)
    write_int8(inference, names, network.config.input_size, quantisations, folder / INT8_NAME)
    manifest = read_manifest(folder)
    files = {**manifest.files, INT8_NAME: file_digest(folder / INT8_NAME)}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


def offset_for(margins: Float32Array, open_share: float) -> float:
    """The offset that opens that share of the gates, those with the highest margins, (G,), at a gate threshold of 0."""
    ordered = np.sort(margins)[::-1]
    count = round(open_share * len(ordered))
    if count == len(ordered):
        return float(1 - ordered[-1])
    return float(-(ordered[count - 1] + ordered[count]) / 2)


def random_images(count: int, side: int) -> Float32Array:
    """Normalised noise, (N, 3, H, W): its values do not matter to the speed."""
    return np.random.default_rng(0).standard_normal((count, 3, side, side)).astype(np.float32)
