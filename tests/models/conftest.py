"""Networks and data small enough to build, train and run in moments."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artifact.preprocessing import Preprocessing
from models.config import ModelConfig
from models.data import Dataset, load_pixels
from models.examples import Examples
from models.hold_out import split
from models.processes import Processes
from models.recipe import Recipe
from models.resnet import AdaptiveResNet
from models.teacher import Teacher
from models.trainer import METRICS_NAME, Trainer

MakeConfig = Callable[..., ModelConfig]
MakeNetwork = Callable[..., AdaptiveResNet]
MakeDataset = Callable[..., Dataset]
MakeTrainer = Callable[..., Trainer]


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def metrics(run: Path) -> list[dict[str, str]]:
    """The rows of a training run's CSV without the time they took."""
    with (run / METRICS_NAME).open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "train_seconds"} for row in rows]


def same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether both hold the same names with the same values, to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def published_weights(network: AdaptiveResNet) -> dict[str, torch.Tensor]:
    """A network's weights as the research code names and shapes them."""
    published = {}
    convolutions = {"basic": 2, "bottleneck": 3}[network.config.block]

    def put(theirs: str, module: nn.Module) -> None:
        published.update({f"module.{theirs}.{name}": tensor for name, tensor in module.state_dict().items()})

    put("conv1", network.stem[0])
    put("bn1", network.stem[1])
    blocks = iter(network.blocks.values())
    for stage, count in enumerate(network.config.stage_blocks, 1):
        for position in range(count):
            block, theirs = next(blocks), f"layer{stage}.{position}"
            for number in range(1, convolutions + 1):
                put(f"{theirs}.conv{number}", block.residual[3 * number - 3])
                put(f"{theirs}.bn{number}", block.residual[3 * number - 2])
            put(f"{theirs}.shortcut", block.shortcut)
            if block.gate is None:
                continue
            for name, module in (("fc1", block.gate.fc1), ("fc1bn", block.gate.bn), ("fc2", block.gate.fc2)):
                put(f"{theirs}.{name}", module)
                if name != "fc1bn":
                    published[f"module.{theirs}.{name}.weight"] = module.weight.detach()[:, :, None, None]
    put("linear", network.classifier)
    return published


def torchvision_weights(network: AdaptiveResNet) -> dict[str, torch.Tensor]:
    """The weights of a network without gates under torchvision's names, which are timm's too."""
    theirs = {}
    for name, tensor in published_weights(network).items():
        name = name.removeprefix("module.").replace(".shortcut.", ".downsample.")
        theirs[re.sub("^linear", "fc", name)] = tensor.clone()
    return theirs


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_config() -> MakeConfig:
    """The config of a three-stage network for 16x16 images, with any field changed."""

    def make(**changes: object) -> ModelConfig:
        fields: dict[str, object] = {
            "name": "small",
            "stem": "cifar",
            "block": "basic",
            "stage_blocks": (1, 1, 1),
            "stage_widths": (4, 8, 16),
            "target_rates": (0.5, 0.5, 0.5),
            "labels": ("dark", "light"),
            "preprocessing": Preprocessing(resize=16, crop=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        }
        return ModelConfig.model_validate(fields | changes)

    return make


@pytest.fixture
def config(make_config: MakeConfig) -> ModelConfig:
    return make_config()


@pytest.fixture
def make_network(make_config: MakeConfig) -> MakeNetwork:
    """A random network in evaluation mode whose gates decide differently from image to image."""

    def make(**changes: object) -> AdaptiveResNet:
        network = AdaptiveResNet(make_config(**changes))
        for block in network.blocks.values():
            if block.gate is not None:
                nn.init.normal_(block.gate.fc1.weight, std=3.0)
                nn.init.normal_(block.gate.fc2.weight, std=3.0)
                nn.init.zeros_(block.gate.fc2.bias)
        # In training mode once, so that the running statistics of the norms are not those of fresh layers.
        network(torch.randn(64, 3, network.config.input_size, network.config.input_size))
        return network.eval()

    return make


@pytest.fixture
def network(make_network: MakeNetwork) -> AdaptiveResNet:
    return make_network()


@pytest.fixture
def images() -> torch.Tensor:
    """Network input of 32 images that differ in brightness and contrast, (32, 3, 16, 16)."""
    return torch.randn(32, 3, 16, 16) * torch.rand(32, 1, 1, 1) + torch.randn(32, 3, 1, 1)


@pytest.fixture
def examples() -> Examples:
    """60 images of 16x16, half of them dark and half light, with so much noise that some are hard to tell."""
    random = np.random.default_rng(0)
    classes = np.tile(np.array([0, 1]), 30)
    levels = 110 + 35 * classes + random.normal(0, 20, 60)
    pixels = random.normal(levels[:, None, None, None], 40, (60, 16, 16, 3)).clip(0, 255).astype(np.uint8)
    names = [f"{index:03d}" for index in range(60)]
    return Examples(("dark", "light"), classes, names, lambda index: Image.fromarray(pixels[index]))


@pytest.fixture
def make_dataset(examples: Examples, config: ModelConfig) -> MakeDataset:
    """The examples with these indices (all by default) as batches."""

    def make(indices: np.ndarray | None = None) -> Dataset:
        chosen = np.arange(len(examples)) if indices is None else indices
        return Dataset(examples, chosen, config.preprocessing, load_pixels(examples, config.preprocessing)[1])

    return make


@pytest.fixture
def make_trainer(examples: Examples, make_config: MakeConfig, make_dataset: MakeDataset, tmp_path: Path) -> MakeTrainer:
    """A run on the 50 training examples; `out` names its folder, `rate` sets the target rate, others the recipe."""

    def make(
        out: str = "run",
        rate: float = 0.5,
        save_every: int = 500,
        init_digest: str | None = None,
        teacher: Teacher | None = None,
        processes: Processes = Processes(),  # noqa: B008 (frozen)
        **changes: object,
    ) -> Trainer:
        recipe = Recipe.model_validate({"epochs": 3, "batch_size": 8, "peak_lr": 0.1, "held_out": 10} | changes)
        torch.manual_seed(recipe.seed)
        network = AdaptiveResNet(make_config().with_target_rates(rate))
        training, validation = map(make_dataset, split(examples, recipe.held_out))
        return Trainer(
            network, recipe, training, validation, tmp_path / out, save_every, init_digest, teacher, processes
        )

    return make
