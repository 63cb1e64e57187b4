"""One image and its answer on a connection, without the application.

The application's way is open to everything that a request can be, and takes longer than all the rest of a small image.
This one is for the request that nearly everybody sends, `POST /classify` with a body of known length. It takes the same
steps, and whatever is out of the ordinary in a request's head is left to the application.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.datastructures import Headers

from service.context import Context
from service.deadlines import Deadline, upload_timeout
from service.direct_cycle import DirectCycle
from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from service.engine.request import PendingRequest
from service.engine.worker import Answer, Outcome
from service.errors import ClientGone, error_body, retry_after_s
from service.http_protocol import GuardedProtocol
from service.outcomes import note_outcomes, note_unreceived
from service.request_record import RequestRecord, named_in_log
from service.schemas import ClassifyParameters
from service.simple_form import simple_file
from service.uploads import Upload, parse_form

ROUTE = "/classify"


class Exchange(DirectCycle):
    """Receives the image, has it classified, and answers.

    Args:
        connection: on which its head has arrived.
        served: the running service.
        record: of the request.
        deadline: of the answer.
        parameters: of the query.
        form_type: the content type where the body is a form.
    """

    def __init__(
        self,
        connection: GuardedProtocol,
        served: Context,
        record: RequestRecord,
        deadline: Deadline,
        parameters: ClassifyParameters,
        form_type: str | None,
    ) -> None:
        super().__init__(connection)
        self._loop = connection.loop
        self._headers = connection.headers
        self._served = served
        self._record = record
        self._deadline = deadline
        self._parameters = parameters
        self._form_type = form_type
        self._held = served.memory.share()
        self._pending: PendingRequest[bytes, Answer] | None = None
        self._parsing: asyncio.Task[list[Upload]] | None = None
        self._timer = self._loop.call_later(deadline.remaining_s, self._do, self._expire)
        in_progress: Any = connection.tasks  # of the server, which waits for them before it ends
        self._in_progress = in_progress
        self._in_progress.add(self)

    def set(self) -> None:
        """Note that something has come: bytes of the body, its end, or the end of the connection."""
        if not self.response_complete:
            self._do(self._leave if self.disconnected else self._receive)

    def cancel(self, msg: str = "") -> None:  # noqa: ARG002 (uvicorn gives it)
        """Give up, as uvicorn asks of what has not ended when its patience has."""
        # Not now: it is going through the set of all.
        self._loop.call_soon(self._do, self._stop)

    def _do(self, step: Callable[[], None]) -> None:
        """Take a step; whatever it raises is the answer."""
        try:
            step()
        except Exception as error:
            self._fail(error)

    def _receive(self) -> None:
        """Take what has come of the body, and go on with the whole of it."""
        record = self._record
        if came := len(self.body) - record.received_bytes:
            record.received_bytes += came
            try:
                self._held.take(came)
            except Exception as error:
                note_unreceived(error, self._served.metrics)
                raise
        if self.more_body:
            self.flow.resume_reading()
            return
        body, self.body = bytes(self.body), bytearray()
        if self._form_type is None:
            self._submit(body)
        elif (file := simple_file(self._form_type, body)) is not None:
            self._submit(file)
        else:
            parsing = parse_form(Headers(raw=self._headers), _whole(body), "file", 1)
            self._parsing = self._loop.create_task(parsing)
            self._parsing.add_done_callback(lambda _: self._do(self._take_form))

    def _take_form(self) -> None:
        """Go on with the file in a form that took a parser."""
        if self._parsing is not None and not self.response_complete:
            (upload,) = self._parsing.result()
            self._submit(upload.data)

    def _submit(self, data: bytes) -> None:
        """Give the image to the engine."""
        self._record.submitted_at = time.perf_counter()
        try:
            pending = self._served.engine.submit(data, self._deadline.remaining_s, self._take_outcome)
        except (Overloaded, EngineStopped) as error:
            self._conclude(error)
            return
        if not self.response_complete:  # as it is where the deadline has just passed
            self._pending = pending

    def _take_outcome(self, outcome: Outcome) -> None:
        """Answer with what came of the image, if anybody still waits for it."""
        if self.response_complete:
            return
        try:
            self._conclude(outcome)
        except Exception as error:
            self._fail(error)

    def _expire(self) -> None:
        """The deadline has passed."""
        if self.response_complete:
            return
        if self._pending is None:
            raise upload_timeout()
        self._conclude(DeadlineExceeded())

    def _stop(self) -> None:
        """The server will wait no longer."""
        if self.response_complete:
            return
        if self._pending is None:
            note_unreceived(EngineStopped(), self._served.metrics)
            raise EngineStopped
        self._conclude(EngineStopped())

    def _leave(self) -> None:
        """The client is gone."""
        if self._pending is not None:
            self._served.metrics.count_failed_image("client_gone")
        raise ClientGone

    def _conclude(self, outcome: Outcome) -> None:
        """Answer with what came of the image."""
        record = self._record
        note_outcomes([outcome], record, self._served.metrics)
        if isinstance(outcome, Exception):
            raise outcome
        record.outcome = "ok"
        choice = self._parameters
        total_s = time.perf_counter() - record.started_at
        self._finish(200, self._served.writer.write(outcome, choice.top_k, choice.graph, total_s))

    def _fail(self, error: Exception) -> None:
        """Answer with an error."""
        with named_in_log(self._record):
            status, body = error_body(error, self._record)
        self._finish(status, body, retry_after_s(error))

    def _finish(self, status: int, body: bytes, retry_after: int | None = None) -> None:
        """Answer, and let go of everything."""
        record = self._record
        record.status = status
        self._timer.cancel()
        self._in_progress.discard(self)
        self._held.give_back()
        self.answer(status, body, record.request_id, retry_after)
        if self._pending is not None:
            self._pending.withdraw()
        if self._parsing is not None:
            self._parsing.cancel()
        # They refer to this, and this stays with its connection until the next request.
        self._pending = self._parsing = None
        self.body = bytearray()
        self._served.note_end("POST", ROUTE, record, time.perf_counter() - record.started_at)


async def _whole(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
