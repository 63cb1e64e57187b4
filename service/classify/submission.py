"""The images of one request on their way through the engine."""

from __future__ import annotations

from service.access.accounts import Account
from service.classify.budgets import Plan
from service.classify.context import Context
from service.classify.deadlines import Deadline
from service.classify.uploads import Upload
from service.classify.waiting import Answers
from service.engine.errors import EngineStopped, NoWorker, Overloaded
from service.engine.job import Answer, Outcome, PendingJob
from service.images.bounded_decoder import ORDINARY_S
from service.images.costs import Kind
from service.images.decoding import ImageTooCostly

NOT_TAKEN = (Overloaded, EngineStopped, NoWorker)
"""What the engine says of an image that it does not take."""


class Images:
    """Has them run, notes what comes of each and learns what it cost.

    An image that turns out to be dear is given up and waits with others that are, as long as anybody waits for it.

    Args:
        served: the running service.
        account: of the API key they came with, where keys are asked for.
        answers: are noted there.
        deadline: of the request.
    """

    def __init__(self, served: Context, account: Account | None, answers: Answers, deadline: Deadline) -> None:
        self._jobs: dict[int, PendingJob] = {}
        self._served = served
        self._account = account
        self._answers = answers
        self._deadline = deadline
        self._is_over = False

    def submit(self, place: int, upload: Upload, kind: Kind, plan: Plan) -> None:
        """Have the image at a place in the request run."""
        self._submit(place, upload, kind, plan, dear=self._served.costs.is_dear(kind))

    def as_run(self, place: int, plan: Plan) -> Plan:
        """What the image at a place was run with in the end."""
        return plan.as_run(self._jobs[place].gate_offset) if place in self._jobs else plan

    def withdraw(self) -> None:
        """Have nothing more run for the request."""
        self._is_over = True
        for job in self._jobs.values():
            job.withdraw()

    def _submit(self, place: int, upload: Upload, kind: Kind, plan: Plan, *, dear: bool) -> None:
        def note(outcome: Outcome) -> None:
            self._learn(kind, outcome, dear=dear)
            if isinstance(outcome, ImageTooCostly) and not dear and not self._is_over:
                self._submit(place, upload, kind, plan, dear=True)
                return
            self._answers.note(place, outcome)
            if self._account:
                self._account.charge(outcome, self._served.manifest)

        try:
            follows = bool(self._jobs)  # a request is let in as a whole, as far as there is any room
            remaining_s = self._deadline.remaining_s
            self._jobs[place] = self._served.engine.submit(
                upload.data,
                remaining_s,
                note,
                follows=follows,
                dear=dear,
                gate_offset=plan.gate_offset,
                is_tensor=upload.is_tensor,
                may_degrade=plan.wish.may_degrade,
            )
        except NOT_TAKEN as error:
            self._answers.note(place, error)

    def _learn(self, kind: Kind, outcome: Outcome, *, dear: bool) -> None:
        costs = self._served.costs
        if isinstance(outcome, Answer):
            costs.note(kind, outcome.decode_s + outcome.inference_s / outcome.batch_size)
        elif isinstance(outcome, ImageTooCostly):
            costs.note(kind, costs.longest_s if dear else ORDINARY_S)
