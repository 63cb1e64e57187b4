"""Networks small enough to export in a moment, whose gates decide differently from image to image."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from artifact.preprocessing import Float32Array, Preprocessing, UInt8Array
from export.artifact_writer import write_artifact
from models.checkpoint import Checkpoint
from models.config import ModelConfig
from models.gate import Gate
from models.resnet import AdaptiveResNet

SIDE = 16
SOURCE_DIGEST = "0" * 64


def small_config(**changes: object) -> ModelConfig:
    """Five blocks, the first without a gate, two with a projection as their shortcut; any field can be changed."""
    fields: dict[str, object] = {
        "name": "small",
        "stem": "cifar",
        "block": "basic",
        "stage_blocks": (2, 2, 1),
        "stage_widths": (4, 8, 16),
        "target_rates": (1.0, 0.5, 0.5, 0.5, 0.5),
        "labels": ("ant", "bee", "cat", "dog", "elk", "fox"),
        "preprocessing": Preprocessing(resize=SIDE, crop=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    }
    return ModelConfig.model_validate(fields | changes)


def small_network(seed: int = 2, **changes: object) -> AdaptiveResNet:
    """A random network in evaluation mode; each of its gates opens for about half of all colour fields."""
    torch.manual_seed(seed)
    network = AdaptiveResNet(small_config(**changes))
    images = torch.from_numpy(network.config.preprocessing.normalise(colour_fields(64)))
    with torch.no_grad():
        # The default classifier is so timid that a skipped block would hardly show in the logits.
        nn.init.normal_(network.classifier.weight)
        for gate in _gates(network):
            nn.init.normal_(gate.fc2.weight, std=0.5)
            nn.init.zeros_(gate.fc2.bias)
        for _ in range(3):  # in training mode, so that the statistics of the norms are not those of fresh layers
            network(images)
        network.eval()
        for column, gate in enumerate(_gates(network)):
            _centre(gate, network(images).margins[:, column])
    return network


def colour_fields(count: int, seed: int = 0) -> UInt8Array:
    """Images of 4 x 4 coloured squares, each image with a tint and a contrast of its own, (N, 16, 16, 3)."""
    random = np.random.default_rng(seed)
    tints, contrasts = random.uniform(0, 255, (count, 1, 1, 3)), random.uniform(0, 100, (count, 1, 1, 1))
    coarse = (tints + contrasts * random.standard_normal((count, 4, 4, 3))).clip(0, 255).astype(np.uint8)
    return coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)


def inputs(network: AdaptiveResNet, count: int, seed: int = 1) -> Float32Array:
    """Network input of `count` colour fields, (N, 3, 16, 16)."""
    return network.config.preprocessing.normalise(colour_fields(count, seed))


def checkpoint_of(network: AdaptiveResNet) -> Checkpoint:
    """The checkpoint that training would have written."""
    return Checkpoint(network.config, network.state_dict())


def confident_network() -> AdaptiveResNet:
    """A small network of two classes, whose predictions 8 bits do not turn."""
    return small_network(seed=3, labels=("ant", "bee"))


@cache
def exported_int8_once(root: Path) -> Path:
    """The artifact of the confident network, int8 graph included, in a folder under `root`; nobody may write to it."""
    network = confident_network()
    images, others = inputs(network, 40), inputs(network, 100, seed=5)
    write_artifact(checkpoint_of(network), SOURCE_DIGEST, root / "int8", images, calibration_images=others)
    return root / "int8"


@cache
def exported_once(root: Path) -> Path:
    """The artifact of the default small network in a folder under `root`, exported by the first who asks."""
    network = small_network()
    images, others = inputs(network, 12), inputs(network, 100, seed=5)
    write_artifact(checkpoint_of(network), SOURCE_DIGEST, root / "small" / "1", images, profile_batches=[others])
    return root / "small" / "1"


def _gates(network: AdaptiveResNet) -> list[Gate]:
    return [network.blocks[name].gate for name in network.gated_blocks]


def _centre(gate: Gate, margins: torch.Tensor) -> None:
    """Scale a gate's margins to a spread of 1, and shift them so that half are positive and none is near 0."""
    ordered = margins.sort().values
    middle = ordered[len(ordered) // 4 : -len(ordered) // 4]
    widest = int(middle.diff().argmax())
    between = (middle[widest] + middle[widest + 1]) / 2
    gate.fc2.bias[1] -= between
    gate.fc2.weight.div_(margins.std())
    gate.fc2.bias.div_(margins.std())
