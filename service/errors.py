"""Where errors become HTTP: the status, the error type and the body that an exception is answered with."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.accounts import ModelNotAllowed, QuotaExceeded, RateLimited, TooManyAtOnce
from service.engine.errors import (
    DeadlineExceeded,
    EngineStopped,
    InferenceFailed,
    InvalidTensor,
    NoWorker,
    Overloaded,
    WorkerLost,
)
from service.images.decoding import (
    CorruptImage,
    EmptyImage,
    ImageTooCostly,
    ImageTooLarge,
    NotAnImage,
    TooManyPixels,
    UnsupportedImage,
)
from service.observability.record import record_of

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ErrorDetail:
    """What went wrong: `type` for programs, `message` for people."""

    type: str
    message: str


@dataclass(slots=True, kw_only=True)
class RequestErrorDetail(ErrorDetail):
    """What went wrong with a request; `request_id` is what the server's log knows it by."""

    request_id: str


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: RequestErrorDetail


class ApiError(Exception):
    """A request the web side refuses before the engine sees it.

    Attributes:
        status: HTTP status.
        type: error type, for programs.
        headers: of the answer.
    """

    def __init__(self, status: int, type_: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.type = type_
        self.headers = headers


class ClientGone(Exception):  # noqa: N818 (a state, told as one)
    """The client closed the connection; nobody will read an answer."""


class ImageFailed(Exception):  # noqa: N818 (as above)
    """One image of a request could not be classified, and so the request is not answered.

    Attributes:
        index: of the image.
        error: what went wrong.
        retry_after_s: as the error has it.
    """

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(f"image {index}: {error}")
        self.index = index
        self.error = error
        self.retry_after_s: float | None = getattr(error, "retry_after_s", None)


KNOWN: dict[type[Exception], tuple[int, str]] = {
    EmptyImage: (400, "empty_image"),
    InvalidTensor: (400, "invalid_tensor"),
    ModelNotAllowed: (403, "model_not_allowed"),
    ImageTooLarge: (413, "image_too_large"),
    TooManyPixels: (413, "too_many_pixels"),
    NotAnImage: (415, "not_an_image"),
    UnsupportedImage: (415, "unsupported_image"),
    CorruptImage: (422, "corrupt_image"),
    ImageTooCostly: (422, "image_too_costly"),
    Overloaded: (429, "overloaded"),
    RateLimited: (429, "rate_limited"),
    TooManyAtOnce: (429, "too_many_requests_at_once"),
    QuotaExceeded: (429, "quota_exceeded"),
    ClientGone: (499, "client_gone"),
    InferenceFailed: (500, "inference_failed"),
    EngineStopped: (503, "stopping"),
    NoWorker: (503, "no_worker"),
    WorkerLost: (503, "worker_lost"),
    DeadlineExceeded: (504, "deadline_exceeded"),
}
"""Exceptions of the rest of the service: HTTP status and error type."""
ErrorWriter = Callable[[str, str, str], bytes]
"""Writes the body of an error, from its type, its message and the request's id."""
_INTERNAL = "internal_error"
# The limits of an API key are its owner's business; a full queue is the service's.
NOT_THE_CLIENTS_FAULT = (
    *(type_ for kind, (status, type_) in KNOWN.items() if kind is Overloaded or status >= 500),
    _INTERNAL,
)
"""Error types of refusals and of failures of the service itself."""
OF_HTTP = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}
"""Error types of what Starlette raises, by status."""


def classify_error(error: Exception) -> tuple[int, ErrorDetail]:
    """The HTTP status and the error for an exception. One that is not known here is logged and told as internal."""
    status, detail = _classified(error)
    if detail.type == _INTERNAL:
        _log.error("unexpected error", exc_info=error)
    return status, detail


def error_type(error: Exception) -> str:
    """The error type of an exception, to be counted; logs nothing."""
    return _classified(error)[1].type


def _classified(error: Exception) -> tuple[int, ErrorDetail]:
    if isinstance(error, ApiError):
        return error.status, ErrorDetail(type=error.type, message=str(error))
    if isinstance(error, ImageFailed):
        status, detail = _classified(error.error)
        return status, ErrorDetail(type=detail.type, message=f"image {error.index}: {detail.message}")
    if isinstance(error, RequestValidationError):
        return 422, _validation_detail(error)
    if isinstance(error, HTTPException):
        type_ = OF_HTTP.get(error.status_code, f"http_{error.status_code}")
        message = "there is nothing at this path; /docs lists the routes" if error.status_code == 404 else error.detail
        return error.status_code, ErrorDetail(type=type_, message=str(message))
    if type(error) in KNOWN:
        status, type_ = KNOWN[type(error)]
        return status, ErrorDetail(type=type_, message=str(error))
    return 500, ErrorDetail(type=_INTERNAL, message="an unexpected error; the server's log has the details")


def install(app: Starlette) -> None:
    """Make every known exception of the app answer as this page says; the others come to the middleware outside it."""
    for kind in (*KNOWN, ApiError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, respond)


async def respond(request: Request, error: Exception) -> Response:
    """The answer to a request that ended with an exception, in the form that its route tells errors in."""
    status, detail = classify_error(error)
    record = record_of(request)
    record.outcome = detail.type
    write: ErrorWriter = getattr(request.state, "write_error", error_json)
    body = write(detail.type, detail.message, record.request_id)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException | ApiError) else {}
    if headers.get("Allow") == "GET":  # of a route that does not know of `HeadAsGet`
        headers["Allow"] = "GET, HEAD"
    if (seconds := retry_after_s(error)) is not None:
        headers["Retry-After"] = str(seconds)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body, status, headers, media_type="application/json")


async def answer(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let an application answer, and answer for it where it raises."""
    try:
        await app(scope, receive, send)
    except (Exception, asyncio.CancelledError) as error:
        request = Request(scope)
        if record_of(request).status is not None:
            raise  # an answer has begun, and can only be broken off
        response = await respond(request, error if isinstance(error, Exception) else stopped())
        await response(scope, receive, send)


def stopped() -> EngineStopped:
    """The error for a request whose task the stopping server has cancelled."""
    if task := asyncio.current_task():
        task.uncancel()
    return EngineStopped()


class ErrorAnswers:
    """Middleware that answers unexpected errors as JSON; FastAPI would answer in plain text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            await answer(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def error_json(type_: str, message: str, request_id: str) -> bytes:
    """The body of an error."""
    return orjson.dumps({"error": RequestErrorDetail(type=type_, message=message, request_id=request_id)})


def retry_after_s(error: Exception) -> int | None:
    """When a client may come back, if that is known: in whole seconds, as the standard has it, and never at once."""
    seconds: float | None = getattr(error, "retry_after_s", None)
    return None if seconds is None else max(1, math.ceil(seconds))


def _validation_detail(error: RequestValidationError) -> ErrorDetail:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "extra_forbidden":
        return ErrorDetail(type="unknown_parameter", message=f"there is no parameter {name!r}")
    return ErrorDetail(type="invalid_parameter", message=f"{name}: {first['msg']}")
