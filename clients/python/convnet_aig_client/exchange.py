"""Requests and what comes back, without sending anything: `Client` and `AsyncClient` do that.

An exchange is a generator. It yields what to send and is sent what came of it, until it returns the result.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx

from convnet_aig_client.attempts import Attempts
from convnet_aig_client.errors import BusyError, DeadlineError, NotReachedError, ServiceError
from convnet_aig_client.reading import read_json

T = TypeVar("T")

_BUSY, _LATE = {429, 503}, {408, 504}
# httpx takes no negative time, which may be left after a pause.
_SHORTEST_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request.

    Attributes:
        content: the body; None for a form, or for no body.
        fields, files: of a form.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    files: list[tuple[str, tuple[str, bytes]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to do next: wait, then send a request, and give up after a while.

    Attributes:
        pause_s: how long to wait first.
        timeout_s: how long to wait for the answer then.
    """

    request: Request
    pause_s: float
    timeout_s: float

    def build(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request as httpx takes it."""
        headers = {"X-Request-Timeout-Ms": str(max(1, round(self.timeout_s * 1000)))}
        if self.request.content is not None:
            headers["Content-Type"] = "application/octet-stream"
        return http.build_request(
            self.request.method,
            self.request.path,
            params=self.request.query,
            headers=headers,
            content=self.request.content,
            data=self.request.fields,
            files=self.request.files or None,
            timeout=self.timeout_s,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detail:
    type: str
    message: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ErrorBody:
    error: _Detail


Exchange = Generator[Attempt, Reply | ServiceError, T]


def ask(request: Request, attempts: Attempts, pause_s: float = 0) -> Exchange[Reply]:
    """Send a request until it succeeds, or until trying again does not help.

    Raises:
        ServiceError: the last attempt's.
    """
    while True:
        outcome = yield Attempt(request, pause_s, max(_SHORTEST_S, attempts.remaining_s - pause_s))
        error = outcome if isinstance(outcome, ServiceError) else error_in(outcome)
        if error is None:
            assert isinstance(outcome, Reply)
            return outcome
        pause = _pause_after(error, attempts)
        if pause is None:
            raise error
        pause_s = pause


def read_reply(kind: type[T], reply: Reply) -> T:
    """What an answer says.

    Raises:
        ServiceError: it is not what the service answers.
    """
    try:
        return read_json(kind, reply.body)
    except ValueError as error:
        raise invalid_answer(reply, str(error)) from error


def error_in(reply: Reply) -> ServiceError | None:
    """The error that an answer tells of, if it does."""
    if reply.status == 200:
        return None
    try:
        told = read_json(_ErrorBody, reply.body).error
    except ValueError:  # of a proxy, or of a server that is none of ours
        told = _Detail(type=f"http_{reply.status}", message=f"the answer was HTTP {reply.status}")
    kind = BusyError if reply.status in _BUSY else DeadlineError if reply.status in _LATE else ServiceError
    error = kind(reply.status, told.type, told.message, told.request_id or _request_id(reply))
    if isinstance(error, BusyError):
        error.retry_after_s = retry_after_s(reply.headers)
    return error


def invalid_answer(reply: Reply, why: str) -> ServiceError:
    """The error for an answer that is not one of the service."""
    return ServiceError(reply.status, "invalid_answer", f"the answer cannot be read: {why}", _request_id(reply))


def error_of(error: httpx.RequestError | TimeoutError) -> ServiceError:
    """What kept an answer from coming."""
    told = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return DeadlineError(None, "deadline_exceeded", "there was no answer in time")
    if isinstance(error, httpx.ConnectError):
        return NotReachedError(None, "not_reached", f"no connection could be made: {told}")
    if isinstance(error, httpx.TransportError):
        return NotReachedError(None, "connection_lost", f"the connection broke before all of the answer came: {told}")
    return ServiceError(None, "invalid_answer", f"the answer cannot be read: {told}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as Retry-After has them (RFC 9110, section 10.2.3); None if it is not there or is neither form.

    A date counts from the answer's own, so that no two clocks need to agree.
    """
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    until, now = _date(value), _date(headers.get("date", ""))
    return max(0.0, (until - now).total_seconds()) if until and now else None


def _date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _pause_after(error: ServiceError, attempts: Attempts) -> float | None:
    if isinstance(error, BusyError):
        return attempts.pause_after(error.type, error.retry_after_s)
    # Nothing that a client asks for changes anything in the service, so what got lost may be asked for again.
    return attempts.pause_after(error.type) if isinstance(error, NotReachedError) else None


def _request_id(reply: Reply) -> str | None:
    return reply.headers.get("x-request-id")
