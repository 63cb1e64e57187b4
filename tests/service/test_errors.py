from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from service import errors
from service.engine import errors as engine_errors
from service.errors import ApiError, ClientGone, classify_error
from service.images import decoding as images
from service.images.decoding import ImageError
from service.observability.record import RequestRecord


@pytest.mark.parametrize(
    ("error", "status", "type_"),
    [
        (images.EmptyImage("m"), 400, "empty_image"),
        (images.ImageTooLarge("m"), 413, "image_too_large"),
        (images.TooManyPixels("m"), 413, "too_many_pixels"),
        (images.NotAnImage("m"), 415, "not_an_image"),
        (images.UnsupportedImage("m"), 415, "unsupported_image"),
        (images.CorruptImage("m"), 422, "corrupt_image"),
        (engine_errors.Overloaded(1.0), 429, "overloaded"),
        (ClientGone("m"), 499, "client_gone"),
        (engine_errors.InferenceFailed(), 500, "inference_failed"),
        (engine_errors.EngineStopped(), 503, "stopping"),
        (engine_errors.DeadlineExceeded(), 504, "deadline_exceeded"),
        (ApiError(418, "teapot", "m"), 418, "teapot"),
        (HTTPException(405, "m"), 405, "method_not_allowed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_error_has_its_status_type_and_message(error: Exception, status: int, type_: str) -> None:
    told_status, detail = classify_error(error)
    assert (told_status, detail.type) == (status, type_)
    assert detail.message


def test_every_error_that_can_reach_a_client_is_known() -> None:
    kinds = [
        kind
        for module, base in ((images, ImageError), (engine_errors, engine_errors.EngineError))
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and kind is not base
    ]
    assert len(kinds) == 17
    # What cannot be opened stops the program before there is a client; what a GPU does is told as what that means.
    inside = {engine_errors.RuntimeUnavailable, engine_errors.DeviceLost, engine_errors.DeviceOutOfMemory}
    for kind in set(kinds) - inside:
        error = kind.__new__(kind)
        assert classify_error(error)[1].type != "internal_error", kind


def test_unknown_error_is_logged_and_told_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, detail = classify_error(ZeroDivisionError("a secret"))
    assert (status, detail.type) == (500, "internal_error")
    assert "secret" not in detail.message
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("a secret",)]


def test_request_that_the_server_waits_for_no_longer_is_told_so() -> None:
    sent: list[Any] = []

    async def answer_never(*_: object) -> None:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> None:
        record = RequestRecord("id", 0.0)
        scope = {"type": "http", "headers": [], "state": {"record": record}}
        task = asyncio.ensure_future(errors.answer(answer_never, scope, send, send))
        await asyncio.sleep(0)
        task.cancel()
        await task
        assert record.outcome == "stopping"

    asyncio.run(scenario())
    assert sent[0]["status"] == 503
