"""Checkpoints on disk: tensors and a JSON header in one safetensors file; loading one executes nothing.

The published ConvNet-AIG checkpoints (`.pth.tar`) are read too, with torch's weights-only unpickler.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from artifact.manifest import INT8_NAME, MANIFEST_NAME, ONNX_NAME, TORCHSCRIPT_NAME
from artifact.preprocessing import Preprocessing
from models.cascade import Network, build_network
from models.config import CascadeConfig, ModelConfig
from models.resnet import block_name

# Those of the published train.py; the deviations of our presets are over all pixels of the training images.
_PUBLISHED_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}

_CONFIG: TypeAdapter[ModelConfig | CascadeConfig] = TypeAdapter(ModelConfig | CascadeConfig)

_OF_AN_ARTIFACT = (INT8_NAME, MANIFEST_NAME, ONNX_NAME, TORCHSCRIPT_NAME)


class CheckpointError(ValueError):
    """The file is missing, damaged, or not a checkpoint of this network."""


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what made them.

    Attributes:
        config: of the network.
        weights: its state dict.
        training: what training had to remember (step, recipe, metrics): anything JSON can hold.
        optimizer: the optimizer's tensors by name; empty where training cannot go on from here.
    """

    config: ModelConfig | CascadeConfig
    weights: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)

    @property
    def held_out(self) -> int | None:
        """How many images its training held out; None where it does not tell, as those of the research code."""
        held_out: int | None = self.training.get("recipe", {}).get("held_out")
        return held_out

    @property
    def data_digest(self) -> str | None:
        """`Examples.digest` of what it was trained on; None where it does not tell."""
        digest: str | None = self.training.get("origin", {}).get("data")
        return digest

    def network(self) -> Network:
        """Build the network with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the config.
        """
        network = build_network(self.config)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit {self.config.name}: {error}") from error
        return network.eval()

    def networks(self) -> list[Checkpoint]:
        """The networks of a cascade, each as a checkpoint of its own; none of a single network."""
        if isinstance(self.config, ModelConfig):
            return []
        return [
            Checkpoint(config, _part(self.weights, f"networks.{position}."))
            for position, config in enumerate(self.config.networks)
        ]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a kill leaves either the old file or the new one, never half of one."""
    tensors = {f"model/{name}": tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    tensors |= {f"optimizer/{name}": tensor.cpu().contiguous() for name, tensor in checkpoint.optimizer.items()}
    header = {"config": checkpoint.config.model_dump_json(), "training": json.dumps(checkpoint.training)}
    unfinished = path.with_suffix(".tmp")
    save_file(tensors, unfinished, header)
    unfinished.replace(path)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; the message says what was probably meant.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder{_remedy(path)}")
    if path.name in _OF_AN_ARTIFACT:
        raise CheckpointError(f"{path} is a file of an artifact, which is made of a checkpoint and is none")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        config = _CONFIG.validate_json(header["config"])
        training = json.loads(header["training"])
    except FileNotFoundError as error:
        found = _first_in(path.parent)
        raise CheckpointError(f"there is no checkpoint {path}{f'; there is {found}' if found else ''}") from error
    except (SafetensorError, KeyError, ValidationError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of this project: {error}") from error
    return Checkpoint(config, _part(tensors, "model/"), training, _part(tensors, "optimizer/"))


def _remedy(folder: Path) -> str:
    if (folder / MANIFEST_NAME).is_file():
        return f" with an artifact, not a checkpoint: python -m models.evaluate takes it as --artifact {folder}"
    found = _first_in(folder)
    return f"; name the checkpoint in it, {found}" if found else " without a checkpoint"


def _first_in(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.safetensors"))), None)


def load_published(path: Path, config: ModelConfig) -> Checkpoint:
    """Read a checkpoint of the published research code for the network `config` describes.

    A CIFAR network is given the normalisation it was trained with, that of `train.py` in
    https://github.com/andreasveit/convnet-aig, instead of the preset's.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights do not fit.
    """
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # torch raises half a dozen unrelated types for a bad file
        raise CheckpointError(f"{path} is not a published checkpoint: {error}") from error
    if not isinstance(published, dict) or not all(isinstance(tensor, Tensor) for tensor in published.values()):
        raise CheckpointError(f"{path} is not a published checkpoint: its state_dict is not one")
    if config.stem == "cifar":
        own = config.preprocessing.model_dump()
        config = config.with_preprocessing(Preprocessing.model_validate(own | _PUBLISHED_CIFAR))
    return Checkpoint(config, rename_published(published), {"source": "published"})


def rename_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Map the published names and shapes to ours, once; a gate's 1x1 convolutions become matrices."""
    renamed = {}
    for name, tensor in weights.items():
        ours = _published_name(name.removeprefix("module."))
        is_gate_matrix = ".gate.fc" in ours and tensor.dim() == 4
        renamed[ours] = tensor.flatten(1) if is_gate_matrix else tensor
    return renamed


def _published_name(name: str) -> str:
    if match := re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", name):
        prefix = f"blocks.{block_name(int(match[1]), int(match[2]))}"
        return f"{prefix}.{_published_part(match[3])}"
    for theirs, ours in (("conv1.", "stem.0."), ("bn1.", "stem.1."), ("linear.", "classifier.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise CheckpointError(f"unknown weight {name!r} in a published checkpoint")


def _published_part(name: str) -> str:
    """The name inside a block: convolutions and norms alternate in our residual branch, with a ReLU between pairs."""
    module, _, rest = name.partition(".")
    if match := re.fullmatch(r"(conv|bn)(\d)", module):
        return f"residual.{3 * (int(match[2]) - 1) + (match[1] == 'bn')}.{rest}"
    gate = {"fc1": "fc1", "fc1bn": "bn", "fc2": "fc2"}
    return f"gate.{gate[module]}.{rest}" if module in gate else name


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
