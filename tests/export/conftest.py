"""Exported networks of every kind, and the small one that tampering starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from artifact.preprocessing import Float32Array
from models.resnet import AdaptiveResNet
from tests.export.forms import Exported
from tests.networks import inputs, small_network

KINDS: dict[str, dict[str, object]] = {
    "basic": {},
    "bottleneck": {"block": "bottleneck"},
    "imagenet stem": {
        "stem": "imagenet",
        "block": "bottleneck",
        "stage_blocks": (1, 1),
        "stage_widths": (4, 8),
        "target_rates": (0.5, 0.5),
    },
    "every block gated": {"target_rates": (0.5,) * 5},
    "plain": {"target_rates": (1.0,) * 5},
}


@pytest.fixture(scope="session", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A network of each kind with its serving form, its TorchScript and its ONNX file."""
    return Exported(small_network(**KINDS[request.param]), tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def network() -> AdaptiveResNet:
    return small_network()


@pytest.fixture(scope="session")
def images(network: AdaptiveResNet) -> Float32Array:
    """Network input of 12 images, (12, 3, 16, 16)."""
    return inputs(network, 12)


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to tamper with."""
    return shutil.copytree(artifact, tmp_path / "copy")
