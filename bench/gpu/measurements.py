"""The parts there are, and what each measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from artifact.manifest import read_manifest
from artifact.preprocessing import UInt8Array
from bench.gpu.parts import Part
from models.config import preset
from service.engine.runtimes.cuda.plan import ElementType

_ROOT = Path(__file__).resolve().parent.parent.parent
_NETWORKS = {"50 layers": "convnet-aig-50-imagenet", "110 layers": "convnet-aig-110-cifar10"}
_PRECISIONS: tuple[ElementType, ...] = get_args(ElementType)
_BATCHES = (1, 8, 32, 128)
# With rivals that try all they know this takes minutes, so not every batch has them.
_SLOW_BATCHES = (128, 1, 32)
_PLANS, _TOOLS = ("lists", "images"), ("memcheck", "racecheck")
_RANDOM_IMAGES, _DATA_IMAGES = 200, 2000
_SERVED_S = 6.0
_SERVED_PRESET, _OPEN_SHARE = "convnet-aig-50-imagenet", 0.6
_SANITIZER_S = 60.0

# With the seconds that each takes at most, so far as that is known without a GPU.
PARTS: tuple[Part, ...] = (
    Part("machine", 30),
    *(Part(f"correctness {precision}", 60) for precision in _PRECISIONS),
    *(Part(f"speed {name} batch {batch}", 40) for name in _NETWORKS for batch in _BATCHES),
    Part("served 38 layers", 60),
    Part("served 50 layers", 100),
    *(Part(f"sanitizer {tool} {plan}", 20) for tool in _TOOLS for plan in _PLANS),
    *(Part(f"slow rivals {name} batch {batch}", 90) for batch in _SLOW_BATCHES for name in _NETWORKS),
)


@dataclass(frozen=True)
class Setting:
    """What parts are measured with.

    Attributes:
        model: folder of an artifact.
        out: folder of the results, which compiled kernels are kept in too.
        data: labelled images, if there are some.
    """

    model: Path
    out: Path
    data: Path | None

    @property
    def cache(self) -> Path:
        """Folder of compiled kernels, the service's too."""
        return self.out / "cache"


def measured(name: str, setting: Setting) -> dict[str, Any]:
    """The result of a part. Libraries are imported by the parts that need them."""
    kind, *words = name.split()
    if kind == "machine":
        return _machine(setting)
    if kind == "correctness":
        (precision,) = (each for each in _PRECISIONS if each == words[0])
        return _correctness(setting, precision)
    if kind == "speed":
        return _speed(setting, _preset(words), int(words[-1]))
    if kind == "slow":
        from bench.gpu.speed import measure_rivals

        return measure_rivals(preset(_preset(words[1:])), int(words[-1]))
    if kind == "served":
        return _served(setting, words[0])
    if kind == "sanitizer":
        from bench.gpu.sanitizer import check

        return check(setting.model, setting.cache, words[1], words[0], _SANITIZER_S)
    raise ValueError(f"there is no part {name!r}")


def _preset(words: list[str]) -> str:
    return _NETWORKS[" ".join(words[:2])]


def _machine(setting: Setting) -> dict[str, Any]:
    from bench.gpu.compiling import compiling
    from bench.gpu.machine import ceilings, described, library_product
    from service.engine.runtimes.cuda.device import CudaDevice

    found = ceilings(CudaDevice(0), compiling(setting.model, setting.cache))
    return {**described(), "ceilings": {**found, **library_product()}}


def _correctness(setting: Setting, precision: ElementType) -> dict[str, Any]:
    from bench.gpu.compiling import compiling
    from bench.gpu.correctness import prove, random_pixels
    from service.engine.runtimes.cuda.device import CudaDevice

    pixels = {"random images": random_pixels(_RANDOM_IMAGES, read_manifest(setting.model).input_size)}
    if setting.data:
        pixels["data"] = labelled(setting.data, setting.model)
    compiled = compiling(setting.model, setting.cache)
    return {"plans": prove(setting.model, CudaDevice(0), compiled, precision, pixels)}


def labelled(data: Path, model: Path) -> UInt8Array:
    """At most 2,000 images from a folder or a tar, spread evenly over it, as the model takes them."""
    from models.sources import open_examples

    examples, preprocessing = open_examples(data), read_manifest(model).preprocessing
    chosen = np.unique(np.linspace(0, len(examples.classes) - 1, _DATA_IMAGES).astype(int))
    return np.stack([examples.fitted(int(index), preprocessing) for index in chosen])


def _speed(setting: Setting, name: str, batch: int) -> dict[str, Any]:
    from bench.gpu.compiling import compiling
    from bench.gpu.speed import measure
    from service.engine.runtimes.cuda.device import CudaDevice

    return measure(preset(name), batch, CudaDevice(0), compiling(setting.model, setting.cache))


def _served(setting: Setting, layers: str) -> dict[str, Any]:
    from bench.gpu.serving import photographs, serve
    from bench.images import probe_jpegs

    if layers == "38":
        return serve(setting.model, probe_jpegs(setting.model), _SERVED_S, setting.cache)
    folder = _ROOT / ".bench" / "networks" / f"{_SERVED_PRESET}-{_OPEN_SHARE:.0%}-open"
    if not folder.exists():
        try:
            from bench.networks import build_artifact
        except ImportError as error:
            return {"left_out": f"{folder.name} is not in .bench/networks, and cannot be built: {error}"}
        build_artifact(_SERVED_PRESET, folder, open_share=_OPEN_SHARE)
    return serve(folder, photographs(64), _SERVED_S, setting.cache)
