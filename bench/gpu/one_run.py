"""One plan runs a few images of a model once: what a sanitizer watches.

compute-sanitizer --tool memcheck python -m bench.gpu.one_run MODEL CACHE PLAN
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from artifact.manifest import read_manifest
from artifact.probes import read_probes
from bench.gpu.compiling import compiling
from bench.gpu.correctness import only
from service.engine.runtimes.base import Model
from service.engine.runtimes.cuda.device import CudaDevice
from service.engine.runtimes.cuda.runtime import CudaRuntime
from service.engine.runtimes.machine_cache import MachineCache

_IMAGES = 4


def main(model: str, cache: str, plan: str) -> None:
    """Run them, with half of them closed to all gates."""
    folder = Path(model)
    manifest = read_manifest(folder)
    images = read_probes(folder, manifest).images[:_IMAGES]
    opened = Model(folder, manifest, MachineCache([], manifest))
    runtime = CudaRuntime(opened, CudaDevice(0), "fp16", compiling(folder, Path(cache)), _IMAGES, only(plan))
    logits, _ = runtime.run(images, np.resize(np.array([0, -1e4], np.float32), len(images)))
    runtime.close()
    print(f"{plan}: {logits.argmax(axis=1).tolist()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
