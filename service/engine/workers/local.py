"""The work itself: each image of a batch is prepared by itself, then run with the others."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ALWAYS, NEVER, Manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import DeadlineExceeded, DeviceLost, InferenceFailed, InvalidTensor
from service.engine.job import Answer, ImageJob, Outcome
from service.engine.runtimes.base import Runtime

_log = logging.getLogger(__name__)


Images = npt.NDArray[Any]
"""Float32 (3, H, W) each, or uint8 (H, W, 3) each."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    row: int
    images: Images  # (1, 3, H, W), or (1, H, W, 3) pixels
    gate_offset: float
    decode_s: float
    is_tensor: bool


class LocalWorker:
    """Does the work, right here.

    Args:
        runtime: runs the model.
        prepare: from an image file to one network input (3, H, W), or to its pixels (H, W, 3), which the runtime
            takes as well; what it raises becomes that image's outcome.
        clock: the one that the jobs' times are told in.
        prepare_dear: the same for jobs that are dear; by default the same function.
        prepares_pixels: whether it is pixels, which are not run together with tensors.
    """

    def __init__(
        self,
        runtime: Runtime,
        prepare: Callable[[bytes], Images],
        clock: Callable[[], float] = time.monotonic,
        prepare_dear: Callable[[bytes], Images] | None = None,
        prepares_pixels: bool = False,
    ) -> None:
        self._runtime = runtime
        self._prepare = prepare
        self._prepare_dear = prepare_dear or prepare
        self._clock = clock
        self._prepares_pixels = prepares_pixels

    @property
    def manifest(self) -> Manifest:
        """Of the model."""
        return self._runtime.manifest

    def check(self, batch_size: int) -> None:
        """Run the model on black images of which every second has its gates forced open, the others closed.

        Raises:
            InferenceFailed: it does not run.
            DeviceLost: the device does not work any more.
        """
        side = self._runtime.manifest.input_size
        images = np.zeros((batch_size, 3, side, side), np.float32)
        try:
            self._outputs(images, np.resize(np.array([ALWAYS, NEVER], np.float32), batch_size))
        except DeviceLost:
            raise
        except Exception as error:  # whatever a runtime raises
            raise InferenceFailed from error

    def work(self, jobs: Sequence[ImageJob]) -> list[Outcome]:
        """The outcome of each job: a failure is its own and nobody else's.

        Raises:
            DeviceLost: the device does not work any more, for this process.
        """
        started = self._clock()
        outcomes: list[Outcome] = [DeadlineExceeded()] * len(jobs)
        prepared = []
        for row, job in enumerate(jobs):
            begun = self._clock()
            if begun >= job.deadline:  # it was sent ahead of others, or those before it took too long
                continue
            try:
                images = self._input(job)[None]
            except Exception as error:  # bad input comes in endless kinds; the caller tells them apart
                outcomes[row] = error
                continue
            ended = self._clock()
            # An answer that would come too late is not worth its compute either.
            if ended < job.deadline:
                prepared.append(_Prepared(row, images, job.gate_offset, ended - begun, job.is_tensor))
        queue_s = [started - job.queued_at for job in jobs]
        if self._prepares_pixels:
            tensors = [each for each in prepared if each.is_tensor]
            self._run(queue_s, tensors, outcomes)
            prepared = [each for each in prepared if not each.is_tensor]
        self._run(queue_s, prepared, outcomes)
        return outcomes

    def _input(self, job: ImageJob) -> Images:
        """What the runtime takes of a job."""
        if job.is_tensor:
            return _tensor(job.image, self._runtime.manifest.input_size)
        return (self._prepare_dear if job.dear else self._prepare)(job.image)

    def _outputs(self, images: Images, offsets: Float32Array) -> LogitsAndMargins:
        logits, margins = self._runtime.run(images, offsets)
        # In plain Python: for the few values of an image NumPy takes three times as long.
        if not (all(map(math.isfinite, logits.ravel().tolist())) and all(map(math.isfinite, margins.ravel().tolist()))):
            raise ArithmeticError("the model's output has values that are no numbers")
        return logits, margins

    def _run(self, queue_s: Sequence[float], batch: list[_Prepared], outcomes: list[Outcome]) -> None:
        """Run a batch and note its outcomes; where it fails as a whole, each image gets a second try alone."""
        if not batch:
            return
        started = self._clock()
        offsets = np.array([each.gate_offset for each in batch], np.float32)
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([each.images for each in batch])
            logits, margins = self._outputs(images, offsets)
            executed = self._runtime.manifest.executed(margins, offsets)
            macs = self._runtime.manifest.spent_macs(executed)
        except DeviceLost:
            raise
        except Exception as error:  # whatever a runtime raises
            if len(batch) > 1:
                _log.warning("a batch of %d failed; running its images one by one", len(batch), exc_info=error)
                for prepared in batch:
                    self._run(queue_s, [prepared], outcomes)
                return
            if isinstance(error, ArithmeticError) and batch[0].is_tensor:  # its client's doing, and not the model's
                outcomes[batch[0].row] = InvalidTensor("the network gives no finite numbers for an image's tensor")
                return
            _log.error("inference failed", exc_info=error)
            failure = InferenceFailed()
            failure.__cause__ = error
            outcomes[batch[0].row] = failure
            return
        inference_s = self._clock() - started
        for index, prepared in enumerate(batch):
            outcomes[prepared.row] = Answer(
                logits=tuple(logits[index].tolist()),
                margins=tuple(margins[index].tolist()),
                executed=tuple(executed[index].tolist()),
                macs=int(macs[index]),
                batch_size=len(batch),
                decode_s=prepared.decode_s,
                queue_s=queue_s[prepared.row],
                inference_s=inference_s,
            )


def _tensor(data: bytes, side: int) -> Float32Array:
    """The network's input that was sent as it is, (3, H, W)."""
    if len(data) != 3 * side * side * 4:
        raise InvalidTensor(f"an image's tensor has 3 x {side} x {side} numbers of 4 bytes, not {len(data)} bytes")
    image = np.frombuffer(data, "<f4").astype(np.float32).reshape(3, side, side)  # runtimes may need a buffer to write
    if not np.isfinite(image).all():
        raise InvalidTensor("an image's tensor has values that are no finite numbers")
    return image
