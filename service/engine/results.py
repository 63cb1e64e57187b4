"""What comes of batches, told to those who wait for it and to those who watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from service.engine.errors import InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.inference_cost import InferenceCost
from service.engine.job import Answer, Outcome, PendingJob
from service.engine.objective import Objective

_log = logging.getLogger(__name__)

# Whoever waits no longer than this, in seconds, has waited for nobody else.
_AT_ONCE_S = 0.001


class Results:
    """Delivers the outcomes of a batch to its jobs, to the health check and to the metrics.

    Args:
        health: is told whether inference works.
        on_batch: told the size of every batch that ran.
        cost: learns what inference takes.
        objective: learns how long answers take for which nothing had to wait.
        max_wait_s: how long images wait for company to form a batch, in seconds.
    """

    def __init__(
        self,
        health: Health,
        on_batch: Callable[[int], None],
        cost: InferenceCost,
        objective: Objective,
        max_wait_s: float = 0.0,
    ) -> None:
        self._health = health
        self._on_batch = on_batch
        self._cost = cost
        self._objective = objective
        self._at_once_s = _AT_ONCE_S + max_wait_s

    def tell(self, batch: Sequence[PendingJob], outcomes: Sequence[Outcome]) -> None:
        """Answer the jobs of a batch."""
        self._note(batch, outcomes)
        for job, outcome in zip(batch, outcomes, strict=True):
            try:
                job.answered(outcome)
            except Exception:  # it is this one's alone
                _log.exception("an answer was not taken")

    def _note(self, batch: Sequence[PendingJob], outcomes: Sequence[Outcome]) -> None:
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        while answers:
            first = answers[0]
            self._on_batch(first.batch_size)
            if not batch[0].dear:  # what those take says nothing of others
                self._learn(first, sum([answer.macs for answer in answers[: first.batch_size]]))
            del answers[: first.batch_size]
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self._health.note(succeeded=True)
            elif isinstance(outcome, InferenceFailed | WorkerLost):
                self._health.note(succeeded=False)

    def _learn(self, answer: Answer, macs: int) -> None:
        """Learn from a batch, of which this is one answer."""
        self._cost.note(macs, answer.inference_s, answer.decode_s, answer.batch_size)
        if answer.queue_s < self._at_once_s:
            self._objective.note_unloaded(answer.queue_s + answer.decode_s + answer.inference_s)
