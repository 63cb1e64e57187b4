"""What a key's holder may still do: requests at once, images a second, and multiply-accumulates.

The gates decide what an image costs, so whoever sends images that open every gate gets more of the machine than others
for as many images. The quota counts what was really spent, on decoding as well. Images that are dear to decode count as
several.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from artifact.manifest import Manifest
from service.access.keys import ApiKey
from service.access.token_bucket import TokenBucket
from service.engine.errors import InferenceFailed, InvalidTensor
from service.engine.job import Answer, Outcome

# How soon to come back where requests are in progress: nobody knows when they end.
_SOON_S = 1.0


class ModelNotAllowed(Exception):  # noqa: N818 (a state, told as one)
    """A key was presented for a model that it is not for."""


class LimitReached(Exception):  # noqa: N818 (a state, told as one)
    """A key has reached one of its limits.

    Attributes:
        retry_after_s: when it may do more, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyAtOnce(LimitReached):
    """It has as many requests in progress as it may."""


class RateLimited(LimitReached):
    """It has sent as many images as it may for now."""


class QuotaExceeded(LimitReached):
    """Its images have cost as many multiply-accumulates as they may for now."""


class Account:
    """One key's allowance.

    Args:
        key: whose limits hold.
        on_spent: told the multiply-accumulates of every image that was run for it, and the model that ran.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        key: ApiKey,
        on_spent: Callable[[int, Manifest], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self._on_spent = on_spent
        self._in_progress = 0
        self._images = self._macs = None
        if rate := key.images_per_second:
            self._images = TokenBucket(rate, key.burst_images or math.ceil(rate), clock)
        if quota := key.macs_per_window:
            self._macs = TokenBucket(quota / key.window_seconds, quota, clock)

    def __enter__(self) -> None:
        """Count a request as in progress for as long as the `with` lasts.

        Raises:
            TooManyAtOnce: before it begins.
        """
        if self._in_progress == self.key.requests_at_once:
            raise TooManyAtOnce(
                f"this key already has {self._in_progress} requests in progress, the most it may have", _SOON_S
            )
        self._in_progress += 1

    def __exit__(self, *_: object) -> None:
        self._in_progress -= 1

    def require_model(self, name: str) -> None:
        """Return if the key is for this model.

        Raises:
            ModelNotAllowed: it is for others.
        """
        if self.key.models is not None and name not in self.key.models:
            raise ModelNotAllowed(f"this key is not for the model {name}")

    def require(self, images: int = 1) -> None:
        """Return if that many images would be accepted now. More than one burst are only when the bucket is full.

        Raises:
            RateLimited, QuotaExceeded: they would not be.
        """
        if self._images and (wait_s := self._images.wait_s(images)):
            raise RateLimited(f"this key may send {self.key.images_per_second:g} images a second", wait_s)
        if self._macs and (wait_s := self._macs.wait_s(1)):
            quota = f"{self.key.macs_per_window} multiply-accumulates in {self.key.window_seconds:g} s"
            raise QuotaExceeded(f"this key has spent its {quota}", wait_s)

    def take(self, images: int) -> None:
        """Count images as sent.

        Raises:
            RateLimited, QuotaExceeded: as for `require`; nothing is counted then.
        """
        self.require(images)
        if self._images:
            self._images.take(images)

    def charge_refused(self) -> None:
        """Count a refused body as one image, because receiving it costs about as much."""
        if self._images:
            self._images.take(1)

    def charge(self, outcome: Outcome, manifest: Manifest) -> None:
        """Count what an image cost that was run, also where nobody waits for its answer any more.

        Args:
            outcome: of the image.
            manifest: of the model that ran.
        """
        if isinstance(outcome, InferenceFailed | InvalidTensor) and self._macs:  # it was run all the same
            self._macs.take(manifest.total_macs)
        if isinstance(outcome, Exception):
            return
        if self._macs:
            self._macs.take(outcome.macs + _macs_of_decoding(outcome))
        self._on_spent(outcome.macs, manifest)


def _macs_of_decoding(answer: Answer) -> float:
    """What could have been run in the time that decoding took, as fast as this image was run."""
    inference_s = answer.inference_s / answer.batch_size
    return answer.macs * answer.decode_s / inference_s if inference_s else 0.0
