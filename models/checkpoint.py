"""Checkpoints on disk: tensors and a JSON header in one safetensors file; loading one executes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from artifact.manifest import INT8_NAME, MANIFEST_NAME, ONNX_NAME, TORCHSCRIPT_NAME
from models.cascade import Network, build_network
from models.config import CascadeConfig, ModelConfig
from models.hold_out import HeldOut

_CONFIG: TypeAdapter[ModelConfig | CascadeConfig] = TypeAdapter(ModelConfig | CascadeConfig)

_MOST_NAMED = 3  # weights in one message
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
    def held_out(self) -> HeldOut | None:
        """What its training held out; None where it does not tell, as weights that others saved."""
        told = self.training.get("held_out")
        return None if told is None else HeldOut.model_validate(told)

    def network(self) -> Network:
        """Build the network with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the config; the message names those that do not.
        """
        network = build_network(self.config)
        require_fit(self.config.name, network.state_dict(), self.weights)
        network.load_state_dict(self.weights)
        return network.eval()

    def networks(self) -> list[Checkpoint]:
        """The networks of a cascade, each as a checkpoint of its own; none of a single network."""
        if isinstance(self.config, ModelConfig):
            return []
        return [
            Checkpoint(config, _part(self.weights, f"networks.{position}."))
            for position, config in enumerate(self.config.networks)
        ]


def require_fit(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Make sure that weights are of the names and shapes of a network's own.

    Raises:
        CheckpointError: they are not; the message has the network's name and tells what is missing, unknown or of
            another shape.
    """
    problems = []
    if missing := [each for each in own if each not in weights]:
        problems.append(f"it has {_few(missing)}, which they lack")
    if unknown := [each for each in weights if each not in own]:
        problems.append(f"it has no {_few(unknown)}")
    others = [each for each in own if each in weights and weights[each].shape != own[each].shape]
    problems += [
        f"{each} is {tuple(weights[each].shape)}, not {tuple(own[each].shape)}" for each in others[:_MOST_NAMED]
    ]
    if problems:
        raise CheckpointError(f"the weights do not fit {name}: {'; '.join(problems)}")


def _few(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


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


def tells_its_network(path: Path) -> bool | None:
    """Whether a safetensors file has the header of a checkpoint of this project; None where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return "config" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return None


def _remedy(folder: Path) -> str:
    if (folder / MANIFEST_NAME).is_file():
        return f" with an artifact, not a checkpoint: python -m models.evaluate takes it as --artifact {folder}"
    found = _first_in(folder)
    return f"; name the checkpoint in it, {found}" if found else " without a checkpoint"


def _first_in(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.safetensors"))), None)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
