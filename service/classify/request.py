"""One request with images, from its head to what came of each image. It knows of no transport."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import NamedTuple, Protocol

from service.access.accounts import Account
from service.classify.body_budget import Share
from service.classify.budgets import Plan, Wish
from service.classify.context import Context
from service.classify.deadlines import Deadline, upload_timeout
from service.classify.outcomes import note_outcomes, note_unreceived
from service.classify.submission import Images
from service.classify.uploads import Body, Upload
from service.classify.waiting import Answers
from service.engine.errors import DeadlineExceeded, EngineStopped
from service.engine.job import Answer, Outcome
from service.errors import ClientGone, error_type, stopped
from service.images.costs import TENSOR, Kind
from service.images.decoding import ImageTooLarge
from service.observability.record import RequestRecord

# What is taken of a body in one step, in bytes; between two steps the event loop turns to others.
_STEP_BYTES = 65_536


class Transport(Protocol):
    """What a request came by.

    Attributes:
        declared_bytes: of the body, where its length is known before it comes.
        has_more: whether more of the body is to come.
    """

    @property
    def declared_bytes(self) -> int: ...

    @property
    def has_more(self) -> bool: ...

    async def receive(self) -> bytes:
        """The next bytes of the body.

        Raises:
            ClientGone: its client has left.
        """

    async def departure(self) -> None:
        """Return when the client has left; asked when all of the body has come."""


class Classified(NamedTuple):
    """What came of one image, and how it was run."""

    upload: Upload
    plan: Plan
    outcome: Outcome


class ClassifyRequest:
    """What is done for one request: who may, is there room, receive, run, count.

    Args:
        served: the running service.
        record: of the request; what becomes of it is noted there.
        account: of the API key it came with, where keys are asked for.
    """

    def __init__(self, served: Context, record: RequestRecord, account: Account | None) -> None:
        self._served = served
        self._record = record
        self._account = account
        record.manifest = served.manifest

    def admit(self) -> None:
        """Return if its images would be accepted now. Asked first, because everything else costs more.

        Raises:
            Overloaded, NoWorker, EngineStopped: the engine takes none.
            ModelNotAllowed: the key is for other models.
            RateLimited, QuotaExceeded: the key has reached its limit.
        """
        try:
            if self._account:
                self._account.require_model(self._served.manifest.name)
            self._served.engine.require_room()
            if self._account:
                self._account.require()
        except Exception as error:
            note_unreceived(error, self._served.counts)
            raise

    async def classify(self, body: Body, transport: Transport, deadline: Deadline, wish: Wish) -> list[Classified]:
        """Receive its images and run them as the client wishes, unless the form says otherwise of an image.

        Returns:
            What came of every image, in the order in which they were sent.

        Raises:
            ApiError: the body is not as documented, or did not come in time, or a budget cannot be had.
            ImageError: the body as a whole is empty or too large.
            Overloaded: other requests hold too much memory.
            RateLimited, QuotaExceeded: the key has reached its limit.
            ClientGone: the client has left.
            EngineStopped: the server waits no longer.
        """
        self._plan(wish)  # what cannot be done is said before the body is received
        with self._served.engine.expected(), self._served.memory.share() as held:
            try:
                uploads = await self._received(body, transport, deadline, held)
                plans = [self._plan(_wish_for(upload, wish)) for upload in uploads]
            except Exception:
                if self._account and self._record.received_bytes:  # else what is refused would be free
                    self._account.charge_refused()
                raise
            kinds = [TENSOR if upload.is_tensor else self._served.costs.kind(upload.data) for upload in uploads]
            if self._account:
                self._account.take(sum(map(self._served.costs.images, kinds)))
            classified = await self._run(uploads, plans, kinds, transport, deadline)
            for upload, plan, outcome in classified:
                if plan.degraded and isinstance(outcome, Answer):
                    self._served.counts.degraded_images.inc()
                    self._served.rechecks.consider(upload.data, outcome, is_tensor=upload.is_tensor)
            return classified

    def _plan(self, wish: Wish) -> Plan:
        engine = self._served.engine
        return self._served.budgets.plan(wish, self._record.elapsed_s + engine.wait_s)

    async def _received(self, body: Body, transport: Transport, deadline: Deadline, held: Share) -> list[Upload]:
        """Receive the whole body, unless it is refused meanwhile or comes too slowly."""
        try:
            async with asyncio.timeout(deadline.remaining_s):
                return await self._read(body, transport, held)
        except TimeoutError as error:
            if transport.has_more:
                raise upload_timeout() from error
            late = DeadlineExceeded()
            note_unreceived(late, self._served.counts)
            raise late from error
        except asyncio.CancelledError as given_up:
            note_unreceived(EngineStopped(), self._served.counts)
            raise stopped() from given_up
        except Exception as error:
            note_unreceived(error, self._served.counts)
            raise

    async def _read(self, body: Body, transport: Transport, held: Share) -> list[Upload]:
        most = min(body.most_bytes, held.capacity)
        if transport.declared_bytes > most:
            raise ImageTooLarge(f"the body has more than {most} bytes")
        while transport.has_more:
            piece = await transport.receive()
            self._record.received_bytes += len(piece)
            if self._record.received_bytes > most:
                raise ImageTooLarge(f"the body has more than {most} bytes")
            held.take(len(piece))
            for start in range(0, len(piece), _STEP_BYTES):
                if start:
                    await asyncio.sleep(0)
                body.take(piece[start : start + _STEP_BYTES])
        return body.uploads()

    async def _run(
        self, uploads: list[Upload], plans: list[Plan], kinds: list[Kind], transport: Transport, deadline: Deadline
    ) -> list[Classified]:
        """Run the images and count what became of each."""
        self._record.submitted_at = time.perf_counter()
        deadline_s = deadline.remaining_s
        answers = Answers(len(uploads))
        images = Images(self._served, self._account, answers, deadline)
        try:
            for place, (upload, plan, kind) in enumerate(zip(uploads, plans, kinds, strict=True)):
                images.submit(place, upload, kind, plan)
            outcomes = await answers.wait(transport.departure, deadline_s)
        except ClientGone as error:
            self._count(uploads, error)
            raise
        except asyncio.CancelledError as given_up:
            gone = stopped()
            self._count(uploads, gone)
            raise gone from given_up
        finally:
            images.withdraw()
        note_outcomes(outcomes, self._record, self._served.counts)
        as_run = [images.as_run(place, plan) for place, plan in enumerate(plans)]
        return list(map(Classified, uploads, as_run, outcomes))

    def _count(self, uploads: list[Upload], error: Exception) -> None:
        for _ in uploads:
            self._served.counts.count_failed_image(error_type(error))


def _wish_for(upload: Upload, wish: Wish) -> Wish:
    """What is asked for an image: what came with it goes before what its request says."""
    return replace(
        wish,
        budget=wish.budget if upload.budget is None else upload.budget,
        may_degrade=wish.may_degrade and upload.may_degrade,
        gate_offset=upload.gate_offset,
    )
