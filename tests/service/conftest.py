"""The exported small network, pictures that take different paths through it, and services that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from service.engine.onnx_runtime import OnnxRuntime
from service.engine.runtime import open_runtime
from service.images import ImageDecoder
from tests.image_files import pngs
from tests.networks import exported_once
from tests.service.server import Server, serving

Outcome = Callable[[bytes], tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(autouse=True, scope="session")
def _single_thread() -> Iterator[None]:
    """One thread: sums in the same order wherever tests run, and no fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small network's artifact; nobody may write to it."""
    return exported_once(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def runtime(artifact: Path) -> OnnxRuntime:
    opened = open_runtime(artifact, device="cpu")
    assert isinstance(opened, OnnxRuntime)
    return opened


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Twenty PNGs; among them the small network takes at least five paths."""
    return pngs(20)


@pytest.fixture(scope="session")
def outcome(runtime: OnnxRuntime) -> Outcome:
    """What the model itself says about an image file: its logits, its margins and which blocks ran."""
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)

    def run(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        offset = np.zeros(1, np.float32)
        logits, margins = runtime.run(decoder.decode(data)[None], offset)
        return logits[0], margins[0], runtime.manifest.executed(margins, offset)[0]

    return run


@pytest.fixture(scope="session")
def server(runtime: OnnxRuntime) -> Iterator[Server]:
    """A service with small limits; only for tests that leave nothing behind but counts."""
    with serving(runtime, max_bytes=8000, max_pixels=10_000, max_images=3) as started:
        yield started
