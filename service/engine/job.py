"""One image on its way through the engine, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True)
class ImageJob:
    """What a worker is told of an image. Times are in seconds of one clock, which all processes share.

    Attributes:
        image: the image file, or what the network takes of an image.
        queued_at: when it was submitted.
        deadline: when nobody waits for its answer any more.
        gate_offset: added to the margin of every gate.
        dear: whether it may take far longer than others.
        model: number of the model that is to run it.
        is_tensor: whether `image` is the network's input, (3, H, W) little-endian float32 row by row, and no file.
    """

    image: bytes
    queued_at: float
    deadline: float
    gate_offset: float = field(default=0.0, kw_only=True)
    dear: bool = field(default=False, kw_only=True)
    model: int = field(default=0, kw_only=True)
    is_tensor: bool = field(default=False, kw_only=True)


@dataclass(eq=False, slots=True)
class PendingJob(ImageJob):
    """A job that waits for its answer.

    Attributes:
        answered: called with what came of it, once, on the event loop; never where it was withdrawn in time.
        given: whether a worker has it.
        withdrawn: whether nobody waits for it any more.
        may_degrade: whether it may have less compute than was asked for.
        asked_offset: the gate offset that was asked for.
    """

    answered: Callable[[Outcome], None]
    given: bool = False
    withdrawn: bool = False
    may_degrade: bool = field(default=False, kw_only=True)
    asked_offset: float = field(init=False)

    def __post_init__(self) -> None:
        self.asked_offset = self.gate_offset

    def limit(self, gate_offset: float) -> None:
        """Run it with at most this, if it may have less than was asked for."""
        if self.may_degrade:
            self.gate_offset = min(self.asked_offset, gate_offset)

    def withdraw(self) -> None:
        """Have it dropped, unless a worker has it already."""
        if not self.withdrawn and not self.given:
            del self.image  # it may be large, and nobody takes account of it any more
        self.withdrawn = True


class Answer(NamedTuple):
    """What came out for one image, as plain numbers: for the few of an image NumPy takes longer than it saves.

    Attributes:
        logits: (classes,).
        margins: (G,) of the gates.
        executed: (B,) which blocks ran.
        macs: multiply-accumulates spent.
        batch_size: images that ran together with this one, itself included.
        decode_s, queue_s, inference_s: seconds spent preparing it, waiting, and running its batch.
    """

    logits: tuple[float, ...]
    margins: tuple[float, ...]
    executed: tuple[bool, ...]
    macs: int
    batch_size: int
    decode_s: float
    queue_s: float
    inference_s: float


Outcome = Answer | Exception
Answered = Callable[[list[Outcome]], None]
