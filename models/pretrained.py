"""Weights of ResNets that others saved: torchvision's, timm's, and those of the published ConvNet-AIG code.

Reading one executes nothing: safetensors files hold tensors only, and pickles are read by torch's weights-only
unpickler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from artifact.preprocessing import Preprocessing
from models.checkpoint import Checkpoint, CheckpointError
from models.config import BottleneckStride, ModelConfig, numbered_labels
from models.resnet import block_name

# Those of the published train.py (https://github.com/andreasveit/convnet-aig); the deviations of our presets are over
# all pixels of the training images.
_PUBLISHED_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
# Where a file keeps its tensors: by themselves, or beside what training had to remember.
_STATE_DICTS = ("state_dict", "model")
_OUTSIDE = {"conv1": "stem.0", "bn1": "stem.1", "fc": "classifier", "linear": "classifier"}
_GATE = {"fc1": "fc1", "fc1bn": "bn", "fc2": "fc2"}


def load_pretrained(path: Path, config: ModelConfig, bottleneck_stride: BottleneckStride | None = None) -> Checkpoint:
    """Read weights of a network of the shape that `config` describes.

    The checkpoint tells the network as it is in the file: its gates, and its number of classes, which have numbers for
    names where the config's are others. A published CIFAR network is given the normalisation it was trained with.

    Args:
        path: a safetensors file, or one that `torch.save` wrote.
        config: of a preset.
        bottleneck_stride: where the network has its strides; None leaves that to the file's metadata, and to the 3x3
            convolution where they do not tell.

    Raises:
        CheckpointError: the file cannot be read safely, or is not of a network of this shape.
        ValueError: `bottleneck_stride` is of no network with basic blocks.
    """
    tensors, metadata = _read(path)
    weights = own_weights(tensors)
    position = bottleneck_stride or _told_stride(metadata)
    if position is not None:
        config = config.with_bottleneck_stride(position)
    published = any(name.removeprefix("module.").startswith("linear.") for name in tensors)
    if published and config.stem == "cifar":
        preprocessing = config.preprocessing.model_dump() | _PUBLISHED_CIFAR
        config = config.with_preprocessing(Preprocessing.model_validate(preprocessing))
    config = _as_it_is(config, weights)
    told = {"source": "published" if published else "torchvision", "stride_told": published or position is not None}
    checkpoint = Checkpoint(config, weights, told)
    checkpoint.network()  # which raises where they do not fit
    return checkpoint


def stride_note(checkpoint: Checkpoint) -> str | None:
    """What to tell a user where the position of the strides had to be assumed."""
    config = checkpoint.config
    if not isinstance(config, ModelConfig) or config.block == "basic" or checkpoint.training.get("stride_told", True):
        return None
    return (
        "note: the file does not tell where the bottleneck blocks have their stride: it is taken to be in the 3x3 "
        "convolution, as in torchvision and timm (--bottleneck-stride 1x1 is for weights of He et al.'s version 1)"
    )


def own_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the names and shapes of others to ours, once: in fp32, and the 1x1 convolutions of gates become matrices.

    Raises:
        CheckpointError: a name is not one of a ResNet's, and is named.
    """
    weights = {}
    for name, tensor in tensors.items():
        own = _own_name(name.removeprefix("module."))
        if tensor.is_floating_point():
            tensor = tensor.float()
        weights[own] = tensor.flatten(1) if ".gate.fc" in own and tensor.dim() == 4 else tensor
    for name in [name for name in weights if name.endswith(".running_mean")]:  # PyTorch before 0.4 kept no count
        weights.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return weights


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and its metadata."""
    metadata: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                found: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
            found = next((found[key] for key in _STATE_DICTS if isinstance(found, dict) and key in found), found)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except Exception as error:  # torch raises half a dozen unrelated types for a bad file
        raise CheckpointError(f"{path} has no weights that can be read safely: {error}") from error
    if not isinstance(found, dict) or not found or not all(isinstance(each, Tensor) for each in found.values()):
        raise CheckpointError(f"{path} has no weights: it is not a state dict, and holds none")
    return found, metadata


def _told_stride(metadata: Mapping[str, str]) -> BottleneckStride | None:
    """The position of the strides, where the metadata's "stride" names one kernel."""
    named = set(re.findall(r"1x1|3x3", metadata.get("stride", "")))
    if named == {"1x1"}:
        return "1x1"
    return "3x3" if named == {"3x3"} else None


def _as_it_is(config: ModelConfig, weights: Mapping[str, Tensor]) -> ModelConfig:
    """The network with the gates and the number of classes that the weights have."""
    names = [
        block_name(stage, position) for stage, count in enumerate(config.stage_blocks, 1) for position in range(count)
    ]
    gated = [f"blocks.{name}.gate.fc1.weight" in weights for name in names]
    if not any(gated):
        config = config.without_gates()
    else:
        # Which rates a published network was trained for is not told; that of a block with a gate has to be below 1.
        rates = zip(config.target_rates, gated, strict=True)
        config = config.with_target_rates(tuple(min(rate, 0.99) if has_gate else 1.0 for rate, has_gate in rates))
    classes = weights.get("classifier.weight")
    if classes is None or len(classes) == len(config.labels) or len(classes) < 2:
        return config
    return config.with_labels(numbered_labels(len(classes)))


def _own_name(name: str) -> str:
    if match := re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", name):
        part = _own_part(match[3])
        if part is not None:
            return f"blocks.{block_name(int(match[1]), int(match[2]))}.{part}"
    module, _, rest = name.partition(".")
    if module in _OUTSIDE and rest and "." not in rest:
        return f"{_OUTSIDE[module]}.{rest}"
    raise CheckpointError(f"unknown weight {name!r}: it is not one of a ResNet's")


def _own_part(name: str) -> str | None:
    """The name inside a block: convolutions and norms alternate in our residual branch, with a ReLU between pairs."""
    module, _, rest = name.partition(".")
    if match := re.fullmatch(r"(conv|bn)(\d)", module):
        return f"residual.{3 * (int(match[2]) - 1) + (match[1] == 'bn')}.{rest}"
    if module in _GATE:
        return f"gate.{_GATE[module]}.{rest}"
    return f"shortcut.{rest}" if module in ("downsample", "shortcut") else None
