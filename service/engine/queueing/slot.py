"""A worker, as the scheduler knows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from service.engine.job import ImageJob, PendingJob

Batch = list[PendingJob]


class Runner(Protocol):
    """Runs batches, in the order in which it is given them."""

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        """Give it a batch, and say whether it is still there; where it is not, it has not begun with that."""


@dataclass(eq=False)
class Slot:
    """What a worker has to do.

    Attributes:
        runner: that is given batches.
        batches: that it has been given; it runs the first of them.
        begun_at: when it began with that.
        in_service: whether it is given batches.
        leaving: whether it is given no more, once and for all.
    """

    runner: Runner
    batches: deque[Batch] = field(default_factory=deque)
    begun_at: float = 0.0
    in_service: bool = False
    leaving: bool = False

    @property
    def ahead(self) -> list[Batch]:
        """What it has been given that it has not begun."""
        return list(islice(self.batches, 1, None))
