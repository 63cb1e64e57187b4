"""What tests of every part share: random numbers and images on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolders = Callable[..., Path]


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(0)


@pytest.fixture
def make_class_folders() -> MakeFolders:
    """Writes `each` PNGs of side x side pixels into a folder for every label; each class has its own colours."""

    def make(root: Path, labels: Sequence[str], each: int, side: int = 32, seed: int = 0) -> Path:
        random = np.random.default_rng(seed)
        for label in labels:
            (root / label).mkdir(parents=True)
            colour = random.uniform(60, 195, 3)
            for number in range(each):
                pixels = np.clip(random.normal(colour, 30, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / label / f"{number:03d}.png")
        return root

    return make
