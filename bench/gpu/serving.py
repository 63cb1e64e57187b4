"""The service with the CUDA engine over HTTP: images a second, their times, and how busy the GPU is meanwhile."""

from __future__ import annotations

import io
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifact.cores import usable_cores
from bench.load import closed_loop
from bench.peer_servers import SERVICE, running

_PORT = 8480
_CLIENTS_A_CORE = 8
_WARMUP_S, _TIMEOUT_S = 3.0, 30.0
_SAMPLE_MS = 200
_PHOTOGRAPH = (375, 500)


@dataclass
class Busy:
    """How busy the GPU was, in samples.

    Attributes:
        samples: of 100, each of the time since the one before in which a kernel ran.
        problem: why there are none.
    """

    samples: list[float] = field(default_factory=list)
    problem: str | None = None

    @property
    def share(self) -> float | None:
        """The median of the samples but the first and the last, from 0 to 1."""
        inner = self.samples[1:-1]
        return statistics.median(inner) / 100 if inner else None


def serve(model: Path, files: Sequence[bytes], seconds: float, cache: Path, device: str = "cuda") -> dict[str, Any]:
    """Ask for the files in turn, from several clients for each core.

    Args:
        model: folder of an artifact.
        files: JPEG.
        seconds: of each load.
        cache: folder that the service keeps kernels in.
        device: as `--device` says.
    """
    flags = f" --device {device} --precision {'fp16' if device == 'cuda' else 'fp32'}"
    service = replace(SERVICE, command=SERVICE.command + flags, environment={"AIG_CACHE": str(cache.resolve())})
    told: dict[str, Any] = {"model": model.parent.name if model.name.isdigit() else model.name}
    with running(service, model, _PORT) as server:
        told["runtime"] = server.classify(files[0]).get("runtime")
        for clients in (1, _CLIENTS_A_CORE * usable_cores()):
            # The warm-up is longer than what the first samples are of.
            with sampled() as busy:
                result = closed_loop(
                    server.url, files, server.headers, clients, seconds, _WARMUP_S, _TIMEOUT_S, check=None
                )
            told[f"{clients} clients"] = {
                "images_per_s": result.images_per_s,
                **{name: value for name, value in result.percentiles_ms().items() if name in ("p50", "p99")},
                "counts": {str(status): count for status, count in result.counts.items()},
                "busy": busy.share,
                "busy_problem": busy.problem,
            }
    return told


@contextmanager
def sampled() -> Iterator[Busy]:
    """Have nvidia-smi tell how busy the first GPU is, until the end of the block."""
    busy, query = Busy(), ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={_SAMPLE_MS}"]
    try:
        process = subprocess.Popen(["nvidia-smi", "-i", "0", *query], stdout=subprocess.PIPE, text=True)
    except OSError as error:
        busy.problem = f"nvidia-smi cannot be run: {error}"
        yield busy
        return
    try:
        yield busy
    finally:
        process.terminate()
        told, _ = process.communicate()
        busy.samples = [float(line) for line in told.splitlines() if line.strip().isdigit()]
        if not busy.samples:
            busy.problem = f"nvidia-smi told nothing: {told[:200]}"


def photographs(count: int) -> list[bytes]:
    """JPEG files of 500 x 375 pixels, as dear to decode as photographs are."""
    random, files = np.random.default_rng(3), []
    for _ in range(count):
        coarse = random.uniform(0, 255, (12, 16, 3)).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(_PHOTOGRAPH[::-1], Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + random.normal(0, 8, smooth.shape)
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files
