"""Small cascades with random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from artifact.manifest import Manifest, read_manifest
from export.artifact_writer import write_artifact
from models.cascade import Cascade
from models.checkpoint import Checkpoint
from models.config import CascadeConfig
from tests.networks import SOURCE_DIGEST, inputs, small_network

# A plain network, one with gates, and one of another shape.
_SHAPES: tuple[dict[str, Any], ...] = (
    {"target_rates": (1.0,) * 5},
    {},
    {"stage_blocks": (1, 2), "stage_widths": (4, 8), "target_rates": (1.0, 0.5, 1.0)},
)
# 8 bits turn no predictions of two classes, and these widths can be compiled in 8 bits.
FOR_INT8 = {"labels": ("ant", "bee"), "stage_widths": (16, 32, 64)}


def cascade_checkpoint(
    networks: int = 3, seed: int = 2, sure_above: tuple[float, ...] = (1.5, 0.7), **changes: Any
) -> Checkpoint:
    """A cascade of so many networks, which asks each for about half of the images that come so far."""
    members = [small_network(seed=seed + number, **shape | changes) for number, shape in enumerate(_SHAPES[:networks])]
    config = CascadeConfig(
        name="cascade", networks=tuple(member.config for member in members), sure_above=sure_above[: networks - 1]
    )
    weights = {
        f"networks.{position}.{name}": tensor
        for position, member in enumerate(members)
        for name, tensor in member.state_dict().items()
    }
    return Checkpoint(config, weights)


def cascade(networks: int = 3) -> Cascade:
    """The same in PyTorch."""
    network = cascade_checkpoint(networks).network()
    assert isinstance(network, Cascade)
    return network


@cache
def exported_cascade(root: Path, networks: int) -> tuple[Path, Manifest]:
    """The folder of a cascade that was exported under `root`, and its manifest; nobody may write to it."""
    folder, first = root / f"cascade of {networks}" / "1", small_network()
    write_artifact(
        cascade_checkpoint(networks), SOURCE_DIGEST, folder, inputs(first, 16), profile_batches=[inputs(first, 100, 5)]
    )
    return folder, read_manifest(folder)


@cache
def exported_int8_cascade(root: Path) -> tuple[Path, Manifest]:
    """A cascade of two networks and two classes, with its int8 graphs."""
    if not torch.cpu.get_capabilities().get("avx512_vnni", False):
        pytest.skip("without VNNI sums of 8-bit products may saturate, and these networks then agree too seldom")
    folder, first = root / "cascade in 8 bits" / "1", small_network()
    checkpoint = cascade_checkpoint(2, seed=3, sure_above=(6.0,), **FOR_INT8)
    write_artifact(checkpoint, SOURCE_DIGEST, folder, inputs(first, 40), calibration_images=inputs(first, 100, 5))
    return folder, read_manifest(folder)
