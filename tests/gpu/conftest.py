"""Devices, and models that are opened on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact.manifest import read_manifest
from bench.gpu.compiling import compiling
from bench.gpu.correctness import PLANS, only
from service.engine.runtimes.base import Model, Precision
from service.engine.runtimes.cuda.device import CudaDevice
from service.engine.runtimes.cuda.runtime import Compile, CudaRuntime
from service.engine.runtimes.machine_cache import MachineCache
from tests.gpu.obstacle import obstacle

SHIPPED = Path(__file__).parents[2] / "model_repository" / "convnet-aig-38-cifar10" / "1"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


@pytest.fixture(autouse=True, scope="session")
def _needs_a_gpu() -> None:
    if problem := obstacle():
        pytest.skip(f"no GPU: {problem}")


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of compiled kernels, as the service keeps them."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="session")
def compiled(kept: Path) -> Compile:
    """Compiles kernels with all cores, each once."""
    return compiling(SHIPPED, kept)


@pytest.fixture(scope="session")
def model() -> Model:
    """The model that ships."""
    manifest = read_manifest(SHIPPED)
    return Model(SHIPPED, manifest, MachineCache([], manifest))


@pytest.fixture(scope="module", params=[(plan, precision) for precision in PRECISIONS for plan in PLANS], ids=str)
def runtime(request: pytest.FixtureRequest, model: Model, compiled: Compile) -> Iterator[CudaRuntime]:
    """The model with each plan in each precision."""
    plan, precision = request.param
    opened = CudaRuntime(model, CudaDevice(0), precision, compiled, make=only(plan))
    yield opened
    opened.close()
