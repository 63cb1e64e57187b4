"""What the middleware does where the application breaks its promises; the rest is told by metrics, ids and logs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from service.http.observation import Observation
from service.http.route_names import RouteNames
from service.observability.metrics import Metrics

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def _ask(app: Any, scope: dict[str, Any] = SCOPE) -> tuple[list[dict[str, Any]], str]:
    """What was sent, and the metrics afterwards."""
    metrics = Metrics()
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        asyncio.run(Observation(app, RouteNames(()), metrics)(dict(scope), _nothing, send))
    finally:
        text = metrics.render().decode()
    return sent, text


def test_answer_that_breaks_off_is_not_answered_again() -> None:
    sent = []

    async def broken(_: Scope, __: Receive, send: Send) -> None:
        message = {"type": "http.response.start", "status": 200, "headers": []}
        sent.append(message)
        await send(message)
        raise KeyError("too late")

    with pytest.raises(KeyError, match="too late"):
        _ask(broken)
    assert len(sent) == 1


def test_request_nobody_answers_is_counted_as_what_its_client_gets() -> None:
    async def silent(_: Scope, __: Receive, ___: Send) -> None:
        pass

    sent, metrics = _ask(silent)
    assert sent == []
    assert 'aig_requests_total{outcome="http_500",route="unmatched"} 1.0' in metrics


def test_what_is_no_request_is_passed_on_as_it_is() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope)

    _, metrics = _ask(app, {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]
    assert "aig_requests_total{" not in metrics


def test_headers_of_an_answer_are_kept() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", b"GET")]})
        await send({"type": "http.response.body"})

    (start, _), _ = _ask(app, {**SCOPE, "headers": [(b"x-request-id", b"mine")]})
    assert start["headers"] == [(b"allow", b"GET"), (b"x-request-id", b"mine")]
