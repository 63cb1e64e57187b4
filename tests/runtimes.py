"""Runtimes without a model: they echo their input, and wait or fail when told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Event, Lock, Semaphore

import numpy as np

from artifact.manifest import Block, Manifest, Verification
from artifact.preprocessing import Float32Array, Preprocessing
from service.engine.runtimes.base import Candidate, Precision

PATIENCE_S = 90.0  # far longer than anything takes; only a hang gets here


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as a condition holds that another thread brings about."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "it never came about"
        time.sleep(0.001)


def echo_manifest(side: int = 2, classes: int = 3) -> Manifest:
    """Three blocks, the last two gated."""
    blocks = [
        Block(name=f"block{n}", stage=1, gated=n > 1, macs=100 * n, shortcut_macs=0, gate_macs=n - 1) for n in (1, 2, 3)
    ]
    return Manifest(
        name="echo",
        version="1",
        labels=tuple(f"class {index}" for index in range(classes)),
        preprocessing=Preprocessing(resize=side, crop=side, mean=(0, 0, 0), std=(1, 1, 1)),
        input_size=side,
        blocks=tuple(blocks),
        stem_macs=10,
        classifier_macs=5,
        total_macs=618,
        ungated_macs=615,
        files={},
        source_digest="0" * 64,
        verification=Verification(
            images=1,
            margin_tolerance=1e-3,
            logit_tolerance=1e-3,
            gates_compared=2,
            gates_within_tolerance=0,
            largest_margin_difference=0.0,
            largest_logit_difference=0.0,
        ),
    )


def echo_input(value: float) -> Float32Array:
    """The network input of a payload, (3, 2, 2), for an engine's `prepare`."""
    return np.full((3, 2, 2), value, np.float32)


class EchoRuntime:
    """Answers image x with the logits (x, 0, 0) and the margins (1, -1).

    Attributes:
        batches: the first value of every image of every batch that ran, warm-up included.
        offsets: the gate offsets of the same batches.
        poison: values of images on which a batch fails.
    """

    name = "echo 1"
    device = "cpu"
    precision: Precision = "fp32"
    runs_batches = True
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, poison: Iterable[float] = ()) -> None:
        self.manifest = echo_manifest()
        self.batches: list[list[float]] = []
        self.offsets: list[list[float]] = []
        self.poison = set(poison)
        self._lock = Lock()
        self._may_run = Event()
        self._may_run.set()
        self._started = Semaphore(0)

    def hold(self) -> None:
        """Let every run from now on wait for `release`."""
        self._may_run.clear()

    def release(self) -> None:
        """Let the runs that wait go on."""
        self._may_run.set()

    def wait_until_running(self, batches: int = 1) -> None:
        """Return once this many more batches have begun since the runtime was held."""
        for _ in range(batches):
            assert self._started.acquire(timeout=PATIENCE_S), "no batch began"

    @property
    def seen(self) -> list[float]:
        """All images that ran, sorted."""
        with self._lock:
            return sorted(value for batch in self.batches for value in batch)

    def run(self, images: Float32Array, gate_offset: Float32Array) -> tuple[Float32Array, Float32Array]:
        """See `service.engine.runtimes.base.Runtime.run`."""
        assert images.dtype == gate_offset.dtype == np.float32
        assert images.shape == (len(gate_offset), 3, 2, 2)
        values = images[:, 0, 0, 0]
        with self._lock:
            self.batches.append(values.tolist())
            self.offsets.append(gate_offset.tolist())
        if not self._may_run.is_set():
            self._started.release()
        assert self._may_run.wait(PATIENCE_S), "nobody released the runtime"
        if poisonous := self.poison & set(values.tolist()):
            raise RuntimeError(f"poisoned by {sorted(poisonous)}")
        logits = np.zeros((len(images), 3), np.float32)
        logits[:, 0] = values
        return logits, np.tile(np.array([1, -1], np.float32), (len(images), 1))
