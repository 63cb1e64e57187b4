"""A network whose gates are set by hand, and images it can be asked about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artifact.preprocessing import UInt8Array
from models.answers import Images
from models.checkpoint import Checkpoint
from models.classifier import TrainedClassifier
from models.config import ModelConfig
from models.examples import Examples
from models.gate import Gate
from models.resnet import AdaptiveResNet
from tests.models.conftest import MakeNetwork

MakeImages = Callable[..., Images]


def classifier_of(network: AdaptiveResNet) -> TrainedClassifier:
    return TrainedClassifier(Checkpoint(network.config, network.state_dict()), torch.device("cpu"), batch_size=8)


def set_margin(gate: Gate, constant: float, of_first_channel: float = 0.0) -> None:
    """Make a gate's margin `constant` plus so many times the mean of its input's first channel."""
    with torch.no_grad():
        for parameter in (gate.fc1.weight, gate.fc1.bias, gate.fc2.weight, gate.fc2.bias):
            parameter.zero_()
        gate.fc1.weight[0, 0] = 1
        gate.bn.reset_running_stats()
        gate.bn.eps = 0.0
        gate.fc2.weight[1, 0] = of_first_channel
        gate.fc2.bias[1] = constant


@pytest.fixture
def hand_built(config: ModelConfig) -> TrainedClassifier:
    """Block 1 runs for images whose red is bright (above 191 of 255 on average), block 2 always, block 3 never."""
    network = AdaptiveResNet(config).eval()
    first, second, third = (network.blocks[name].gate for name in network.gated_blocks)
    with torch.no_grad():
        network.stem[0].weight.zero_()
        network.stem[0].weight[0, 0, 1, 1] = 1  # the first channel is red, of which the ReLU leaves what is above 128
        network.stem[1].eps = 0.0
    set_margin(first, -1.0, of_first_channel=1.0)  # (191 / 255 - 0.5) / 0.25 = 1
    set_margin(second, 2.0)
    set_margin(third, -3.0)
    return classifier_of(network)


@pytest.fixture
def make_images(config: ModelConfig) -> MakeImages:
    """Images of these pixels (N, 16, 16, 3) with these classes."""

    def make(pixels: UInt8Array, classes: np.ndarray) -> Images:
        labels, names = (
            config.labels,
            [f"{config.labels[label]}/{index:03d}.png" for index, label in enumerate(classes)],
        )
        examples = Examples(labels, classes, names, lambda index: Image.fromarray(pixels[index]))
        return Images(examples, np.arange(len(pixels)), config.preprocessing)

    return make


@pytest.fixture
def grey(make_images: MakeImages) -> Images:
    """40 even images, alternately dark (class 0) and light (class 1), each of another level."""
    levels = np.arange(40) + np.tile([20, 200], 20)
    pixels = np.broadcast_to(levels[:, None, None, None], (40, 16, 16, 3)).astype(np.uint8)
    return make_images(pixels, np.tile(np.array([0, 1]), 20))


@pytest.fixture
def random_classifier(make_network: MakeNetwork) -> TrainedClassifier:
    """Its gates differ from image to image, and its classes are far apart enough for a gradient to say something."""
    network = make_network()
    nn.init.normal_(network.classifier.weight, std=1.0)
    return classifier_of(network)


@pytest.fixture
def noise(make_images: MakeImages, random_classifier: TrainedClassifier, rng: np.random.Generator) -> Images:
    """60 images of noise whose class is what the random classifier says."""
    pixels = rng.normal(rng.uniform(60, 190, (60, 1, 1, 3)), 30, (60, 16, 16, 3)).clip(0, 255).astype(np.uint8)
    logits, _ = random_classifier.run(pixels)
    return make_images(pixels, logits.argmax(axis=1))
