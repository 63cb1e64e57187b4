"""The exported small network, pictures that take different paths through it, and services that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.selection import open_runtime
from service.images.decoding import ImageDecoder
from tests.runtimes import EchoRuntime
from tests.service.server import Server, serving

Outcome = Callable[[bytes], tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def runtime(artifact: Path) -> OnnxRuntime:
    opened = open_runtime(artifact, "onnx", "cpu")
    assert isinstance(opened, OnnxRuntime)
    return opened


@pytest.fixture
def echo_runtime() -> Iterator[EchoRuntime]:
    """A runtime that can be held up; let go of at the end, so that no worker is left waiting."""
    runtime = EchoRuntime()
    yield runtime
    runtime.release()


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
