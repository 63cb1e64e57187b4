"""Small changes to an image that leave what it shows as it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from artifact.preprocessing import UInt8Array


@dataclass(frozen=True)
class Perturbation:
    """A change of fitted pixels (H, W, 3); what is random in it comes from the generator."""

    name: str
    change: Callable[[UInt8Array, np.random.Generator], UInt8Array]

    def apply(self, pixels: UInt8Array, indices: np.ndarray) -> UInt8Array:
        """Change images (N, H, W, 3); the same index always gives the same noise, whatever the batch."""
        changed = [
            self.change(image, np.random.default_rng(int(index))) for image, index in zip(pixels, indices, strict=True)
        ]
        return np.stack(changed)


def _mirrored(pixels: UInt8Array, _: np.random.Generator) -> UInt8Array:
    return pixels[:, ::-1]


def _moved(pixels: UInt8Array, _: np.random.Generator) -> UInt8Array:
    """To the right by one pixel; the column at the left edge is repeated."""
    return np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1)


def _brightened(factor: float) -> Perturbation:
    def change(pixels: UInt8Array, _: np.random.Generator) -> UInt8Array:
        return _rounded(pixels * np.float32(factor))

    return Perturbation(f"{abs(factor - 1):.0%} {'brighter' if factor > 1 else 'darker'}", change)


def _compressed(quality: int) -> Perturbation:
    def change(pixels: UInt8Array, _: np.random.Generator) -> UInt8Array:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return Perturbation(f"JPEG, quality {quality}", change)


def _noisy(deviation: float) -> Perturbation:
    def change(pixels: UInt8Array, random: np.random.Generator) -> UInt8Array:
        return _rounded(pixels + random.normal(0, deviation, pixels.shape).astype(np.float32))

    return Perturbation(f"noise, {deviation:g} of 255", change)


def _rounded(pixels: np.ndarray) -> UInt8Array:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


PERTURBATIONS = (
    Perturbation("mirrored", _mirrored),
    Perturbation("moved by one pixel", _moved),
    _brightened(1.1),
    _brightened(0.9),
    _compressed(90),
    _compressed(50),
    _noisy(4),
    _noisy(8),
)
