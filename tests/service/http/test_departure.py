"""Clients that leave, told to the application by hand as a server would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.access.keys import Keyring
from service.app import create_app
from service.engine.engine import Engine
from service.engine.job import Outcome
from service.errors import ClientGone
from service.http.turns import RequestTurns
from service.settings import Settings
from tests.image_files import solid
from tests.runtimes import PATIENCE_S, EchoRuntime
from tests.service.connection import Connection
from tests.service.server import pool


@pytest.fixture
def runtime(echo_runtime: EchoRuntime) -> EchoRuntime:
    """Runs nothing, and only when told to."""
    return echo_runtime


@pytest.fixture
def app(runtime: EchoRuntime) -> Any:
    settings = Settings(workers=1, max_batch=1, max_wait_ms=0, objective_ms=1e6)
    return create_app(settings, pool(runtime, settings))


@asynccontextmanager
async def _busy(app: Any, runtime: EchoRuntime) -> AsyncIterator[Engine]:
    """The application's engine, kept busy with one image until the end."""
    engine = app.context.engine
    async with app.running():
        runtime.hold()
        running: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        engine.submit(solid(10), PATIENCE_S, running.set_result)
        runtime.wait_until_running()
        yield engine
        runtime.release()
        await running


async def _until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def _requests(app: Any, outcome: str, route: str = "/classify") -> float:
    return app.context.metrics.requests.labels(route, outcome)._value.get()


def _images(app: Any, outcome: str) -> float:
    return app.context.counts.images.labels(outcome)._value.get()


def _values(*greys: int) -> list[Any]:
    return [pytest.approx(grey / 255) for grey in greys]


def _form(*files: bytes) -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--edge--\r\n"


def test_client_that_leaves_while_waiting_withdraws_its_image(app: Any, runtime: EchoRuntime) -> None:
    async def scenario() -> None:
        async with _busy(app, runtime) as engine:
            leaving, staying = (Connection(app, "/classify", "image/png") for _ in range(2))
            leaving.send_body(solid(20))
            await _until(lambda: engine.queue_depth == 1)
            staying.send_body(solid(30))
            await _until(lambda: engine.queue_depth == 2)
            leaving.leave()
            await leaving.finished()  # without waiting for the image that runs
        await staying.finished()
        assert staying.sent[0]["status"] == 200

    asyncio.run(scenario())
    assert runtime.seen == [0.0, *_values(10, 30)]
    assert (_requests(app, "client_gone"), _requests(app, "ok")) == (1, 1)
    assert (_images(app, "client_gone"), _images(app, "ok")) == (1, 1)


def test_client_that_leaves_withdraws_its_whole_batch(app: Any, runtime: EchoRuntime) -> None:
    async def scenario() -> None:
        async with _busy(app, runtime) as engine:
            leaving = Connection(app, "/classify/batch", "multipart/form-data; boundary=edge")
            leaving.send_body(_form(solid(20), solid(30), solid(40)))
            await _until(lambda: engine.queue_depth == 3)
            leaving.leave()
            await leaving.finished()

    asyncio.run(scenario())
    assert runtime.seen == [0.0, *_values(10)]
    assert _requests(app, "client_gone", "/classify/batch") == 1
    assert _images(app, "client_gone") == 3


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=edge"])
def test_client_that_leaves_in_the_middle_of_its_body_is_forgotten(
    app: Any, runtime: EchoRuntime, content_type: str
) -> None:
    async def scenario() -> None:
        async with app.running():
            leaving = Connection(app, "/classify", content_type)
            body = _form(solid(20)).replace(b"files", b"file") if "form" in content_type else solid(20)
            leaving.send_body(body[: len(body) - 30], more=True)
            leaving.leave()
            await leaving.finished()
            staying = Connection(app, "/classify", "image/png")
            staying.send_body(solid(30))
            await staying.finished()
            assert staying.sent[0]["status"] == 200

    asyncio.run(scenario())
    assert runtime.seen == [0.0, *_values(30)]
    assert (_requests(app, "client_gone"), _requests(app, "ok")) == (1, 1)
    assert (_images(app, "client_gone"), _images(app, "ok")) == (0, 1)  # what never arrived was no image


def test_client_that_leaves_while_its_image_runs_harms_nobody(app: Any, runtime: EchoRuntime) -> None:
    async def scenario() -> None:
        async with app.running():
            runtime.hold()
            leaving = Connection(app, "/classify", "image/png")
            leaving.send_body(solid(20))
            await asyncio.to_thread(runtime.wait_until_running)
            leaving.leave()
            await leaving.finished()
            runtime.release()
            staying = Connection(app, "/classify", "image/png")
            staying.send_body(solid(30))
            await staying.finished()
            assert staying.sent[0]["status"] == 200

    asyncio.run(scenario())
    assert runtime.seen == [0.0, *_values(20, 30)]
    assert _requests(app, "client_gone") == 1


_PREFLIGHT = ((b"origin", b"https://a.example"), (b"access-control-request-method", b"POST"))


@pytest.mark.parametrize(
    ("method", "path", "route", "headers"),
    [
        ("POST", "/classify", "/classify", ()),
        ("GET", "/model", "/model", ()),
        ("HEAD", "/healthz", "/healthz", ()),
        ("GET", "/ui/styles/page.css", "/ui/{path:path}", ()),
        ("GET", "/static-offline-docs/a", "/static-offline-docs/{path:path}", ()),
        ("OPTIONS", "/classify", "/classify", _PREFLIGHT),
        ("GET", "/nothing", "unmatched", ()),
        ("GET", "/model", "/model", [(b"x", b"")] * 200),
    ],
)
def test_all_requests_wait_for_their_turn_and_are_counted_under_their_route(
    runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch, method: str, path: str, route: str, headers: Any
) -> None:
    settings = Settings(workers=1, max_batch=1, max_wait_ms=0, objective_ms=1e6, cors_origins=("https://a.example",))
    app = create_app(settings, pool(runtime, settings), Keyring(()))  # nothing without a key, and there is none

    async def leave(*_: object) -> None:
        raise ClientGone

    async def scenario() -> None:
        async with app.running():
            monkeypatch.setattr(RequestTurns, "wait", leave)
            connection = Connection(app, path, "image/png", method, *headers)
            connection.send_body(b"")
            await connection.finished()

    asyncio.run(scenario())
    assert _requests(app, "client_gone", route) == 1
