from __future__ import annotations

import re

import httpx
import pytest

from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import pngs
from tests.service.server import Server, serving

NOTHING = "default-src 'none'; frame-ancestors 'none'"
ORIGIN = "https://page.example"


def _failing(server: Server, monkeypatch: pytest.MonkeyPatch) -> httpx.Response:
    def fail() -> bytes:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setattr(server.context.metrics, "render", fail)
    return server.get("/metrics")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/classify", 200),
        ("POST", "/classify?top_k=0", 422),
        ("GET", "/model", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/classify", 405),
    ],
)
def test_answer_tells_browsers_to_do_nothing_with_it(server: Server, method: str, path: str, status: int) -> None:
    response = server.request(method, path, content=pngs(1)[0], headers={"content-type": "image/png"})
    assert response.status_code == status
    _assert_inert(response)


def test_answer_to_an_unexpected_exception_does_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    response = _failing(server, monkeypatch)
    assert response.status_code == 500
    _assert_inert(response)


def _assert_inert(response: httpx.Response) -> None:
    told = response.headers
    assert told["x-content-type-options"] == "nosniff"
    assert told["referrer-policy"] == "no-referrer"
    assert told["content-security-policy"] == NOTHING
    assert told["cache-control"] == "no-store"
    assert len(told.get_list("cache-control")) == len(told.get_list("content-security-policy")) == 1


def test_documentation_page_may_use_what_it_needs_from_here_and_nothing_else(server: Server) -> None:
    policy = server.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert not re.search(r"https?:|\*|'unsafe-eval'", policy)
    script = server.get("/static-offline-docs/swagger-ui-bundle.js")
    assert script.headers["cache-control"] == "no-cache"


def test_pages_of_other_origins_are_told_nothing_unless_they_are_allowed(server: Server, runtime: OnnxRuntime) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    for response in (server.get("/model", headers=asked), server.request("OPTIONS", "/classify", headers=asked)):
        assert not [name for name in response.headers if name.startswith("access-control")]
    with serving(runtime, cors_origins=f"{ORIGIN}, https://other.example") as open_server:
        allowed = open_server.request("OPTIONS", "/classify", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "X-API-Key" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        answer = open_server.get("/model", headers=asked)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        stranger = open_server.get("/model", headers={"origin": "https://page.example.evil"})
        assert "access-control-allow-origin" not in stranger.headers
