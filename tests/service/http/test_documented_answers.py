"""What the OpenAPI document says that routes answer, held against what they are made to answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.access.keys import ApiKey, Keyring
from service.classify.deadlines import HEADER
from service.errors import ApiError, ErrorResponse
from service.http import endpoint, model_routes, routes
from service.http.security_headers import API_HEADERS
from service.repository.models import ModelState
from service.repository.repository import Repository
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.http_server import EDGE, http_serving, part, read_answer
from tests.service.server import Server, serving

Answers = dict[tuple[str, str], set[str]]
"""By path and status: the names of headers."""

OF_MODELS = ("/models/{name}", "/models/{name}/versions/{version}")
GETS = ("/model", "/models", *OF_MODELS, "/healthz", "/readyz", "/metrics")
POSTS = tuple(f"{of_model}/classify{batch}" for of_model in ("", *OF_MODELS) for batch in ("", "/batch"))
CHANGES = tuple(f"{of_model}/{change}" for of_model in OF_MODELS for change in ("load", "unload"))
NEEDING_KEYS = ("/model", "/models", *OF_MODELS, "/metrics", *POSTS, *CHANGES)
# Of every answer, or of the connection; that of CORS has tests of its own.
_GENERAL = {name.lower() for name in API_HEADERS} | {"content-type", "content-length", "connection"}
_POISON = solid(102)


def _key(name: str, **limits: object) -> ApiKey:
    return ApiKey.model_validate({"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} | limits)


KEYS = Keyring([_key("all", metrics=True, admin=True), _key("one", requests_at_once=1), _key("other", models=["none"])])


class Witness:
    """Asks a server, and notes what is answered."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: Answers = defaultdict(set)

    def note(self, path: str, status: int, headers: Iterable[str], body: Any) -> None:
        self.seen[path, str(status)] |= {name.lower() for name in headers} - _GENERAL
        if isinstance(body, dict) and "error" in body:
            ErrorResponse.model_validate(body, extra="forbid")

    def ask(
        self,
        path: str,
        key: str | None = "all",
        headers: dict[str, str] | None = None,
        name: str | None = None,
        **body: Any,
    ) -> None:
        """Ask for the path of a route, of the model that is served or of another."""
        manifest = self.server.context.manifest
        sent = (headers or {}) | ({"X-API-Key": key} if key else {})
        asked = path.format(name=name or manifest.name, version=manifest.version)
        self._note_answer(path, self.server.request("GET" if path in GETS else "POST", asked, headers=sent, **body))

    def post(self, path: str, *images: bytes, **arguments: Any) -> None:
        """Send images as each of the routes takes them."""
        name = "files" if path.endswith("/batch") else "file"
        self.ask(path, files=[(name, ("a.png", image)) for image in images], **arguments)

    def _note_answer(self, path: str, response: httpx.Response) -> None:
        is_json = response.headers["content-type"] == "application/json"
        self.note(path, response.status_code, response.headers, response.json() if is_json else None)


@pytest.fixture
def echo_runtime() -> Iterator[EchoRuntime]:
    runtime = EchoRuntime(poison=[np.float32(102) * (np.float32(1) / np.float32(255))])
    yield runtime
    runtime.release()


def _documented(server: Server) -> Answers:
    paths = server.get("/openapi.json").json()["paths"]
    return {
        (path, status): {name.lower() for name in response["headers"]}
        for path, operations in paths.items()
        for operation in operations.values()
        for status, response in operation["responses"].items()
    }


def _succeed_and_fail_by_head(witness: Witness) -> None:
    for path in GETS:
        witness.ask(path)
    for path in POSTS:
        witness.post(path, solid(1))
    for path in (*GETS, *POSTS, *CHANGES):
        witness.ask(path, headers={f"x-{number}": "1" for number in range(200)})
    for path in NEEDING_KEYS:
        witness.ask(path, key=None)
        if "{name}" in path:
            witness.ask(path, name="nobody")
    for path in ("/metrics", *POSTS):
        witness.ask(path, key="other")


def _fail_by_body(witness: Witness) -> None:
    async def never_ends() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    kind = {"content-type": EDGE}
    for path in POSTS:
        witness.ask(path, headers=kind, content=b"--edge\r\n")
        witness.ask(path, headers=kind | {HEADER: "20"}, content=never_ends())
        witness.post(path, bytes(200_000))
        witness.ask(path, headers={"content-type": "text/plain"}, content=b"text")
        witness.ask(path, headers=kind | {"content-encoding": "gzip"}, content=b"a")
        witness.ask(path, headers={HEADER: "none"}, content=b"a")
        if not path.endswith("/batch"):
            witness.post(path, _POISON)


def _fail_by_deadline_while_all_is_there(witness: Witness, path: str) -> None:
    """The body comes in one piece, as clients hardly ever send it, and looking through it takes too long."""
    body = part(bytes(90_000), "files") + b"--edge--\r\n"
    sent = {"x-api-key": "all", "content-type": EDGE, HEADER.lower(): "0.001"}
    headers = [(name.encode(), value.encode()) for name, value in sent.items()]
    asked = path.format(name=witness.server.context.manifest.name, version=witness.server.context.manifest.version)
    scope = {"type": "http", "method": "POST", "path": asked, "query_string": b"", "headers": headers, "root_path": ""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def note(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            witness.note(path, message["status"], (name.decode() for name, _ in message["headers"]), None)

    witness.server.wait_for(witness.server.app(scope, receive, note))


def _fail_by_load(witness: Witness, runtime: EchoRuntime) -> None:
    runtime.hold()
    held = witness.server.begin("POST", "/classify", content=solid(1), headers={"X-API-Key": "one"})
    runtime.wait_until_running()
    for path in NEEDING_KEYS:
        witness.ask(path, key="one")
    for path in POSTS:
        if not path.endswith("/batch"):
            witness.post(path, solid(1), headers={HEADER: "20"})
    runtime.release()
    assert held.result().status_code == 200


def _change_models(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load and unload, where that is possible and where it is not."""
    for path in CHANGES:
        witness.ask(path, key="one")
        witness.ask(path)  # there is no repository
    outcomes: list[Exception | None] = [None, ApiError(404, "unknown_model", ""), ApiError(422, "model_failed", "")]
    for outcome in [*outcomes, KeyError("nobody expected this")]:

        async def change(*_: object, outcome: Exception | None = outcome) -> None:
            if outcome:
                raise outcome

        with monkeypatch.context() as patch:
            for name in ("load", "unload"):
                patch.setattr(Repository, name, change)
            for path in CHANGES:
                witness.ask(path)


def _load_while_asked(witness: Witness) -> None:
    models, manifest = witness.server.app.others.state.repository.models, witness.server.context.manifest
    models.states["later", manifest.version] = ModelState("loading")
    for path in (*OF_MODELS, *(path for path in POSTS if "{name}" in path)):
        witness.ask(path, name="later")
    del models.states["later", manifest.version]


def _fail_unexpectedly(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("nobody expected this")

    with monkeypatch.context() as patch:
        for module, name in (
            (model_routes, "ModelDescription"),
            (model_routes, "ModelList"),
            (routes, "Status"),
            (endpoint, "BatchClassification"),
        ):
            patch.setattr(module, name, fail)
        patch.setattr(witness.server.context.metrics, "render", fail)
        for path in GETS:
            witness.ask(path)
        for path in POSTS:
            if path.endswith("/batch"):
                witness.post(path, solid(1))


def _fail_by_number_of_connections(witness: Witness, runtime: EchoRuntime) -> None:
    with http_serving(runtime, KEYS, max_connections=1, max_connections_per_address=1) as server, server.connect():
        for path in (*GETS, *POSTS, *CHANGES):
            with server.connect() as another:
                answer = read_answer(another)
                witness.note(path, answer.status, answer.headers, answer.body)


def test_routes_answer_all_that_is_documented_and_nothing_else(
    echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(echo_runtime, KEYS, workers=1, max_batch=1, max_bytes=100_000, max_images=1) as server:
        witness = Witness(server)
        _succeed_and_fail_by_head(witness)
        _fail_by_body(witness)
        for path in POSTS:
            if path.endswith("/batch"):
                _fail_by_deadline_while_all_is_there(witness, path)
        _fail_by_load(witness, echo_runtime)
        _fail_unexpectedly(witness, monkeypatch)
        _change_models(witness, monkeypatch)
        _load_while_asked(witness)
        _fail_by_number_of_connections(witness, echo_runtime)
        documented = _documented(server)
        server.context.engine.crew.leave()
        witness.ask("/readyz")
    assert witness.seen == documented


def test_keys_add_their_own_answers_and_take_none(echo_runtime: EchoRuntime) -> None:
    with serving(echo_runtime) as without, serving(echo_runtime, KEYS) as with_keys:
        added = _documented(with_keys).keys() - _documented(without).keys()
        assert _documented(without).keys() < _documented(with_keys).keys()
    assert added == {
        *((path, "401") for path in NEEDING_KEYS),
        *((path, "429") for path in (*GETS, *CHANGES) if path in NEEDING_KEYS),
        *((path, "403") for path in ("/metrics", *POSTS)),
    }
