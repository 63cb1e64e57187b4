from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.runtimes import EchoRuntime
from tests.service.http_server import RunningServer, http_serving
from tests.service.server import serving

ROUTES = ["/healthz", "/readyz", "/model", "/metrics", "/docs", "/openapi.json", "/"]

ACCESS_LOG = "service.observability.access_log"


@pytest.fixture
def server(echo_runtime: EchoRuntime) -> Iterator[RunningServer]:
    with http_serving(echo_runtime, access_log="on") as server:
        yield server


def _answer(server: RunningServer, method: str, path: str) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and what follows them until the server hangs up."""
    with server.connect() as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        told = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = told.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("path", [*ROUTES, "/ui/scripts/api.js", "/static-offline-docs/swagger-ui.css"])
def test_head_is_told_what_get_is_without_the_body(server: RunningServer, path: str) -> None:
    status, headers, body = _answer(server, "HEAD", path)
    expected_status, expected, expected_body = _answer(server, "GET", path)
    assert status == expected_status == "HTTP/1.1 200 OK"
    assert (body, bool(expected_body)) == (b"", True)
    varying = {"date", "x-request-id"} | ({"content-length"} if path == "/metrics" else set())
    assert {n: v for n, v in headers.items() if n not in varying} == {
        n: v for n, v in expected.items() if n not in varying
    }


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_head_of_what_has_no_get_is_refused(server: RunningServer, path: str) -> None:
    status, headers, body = _answer(server, "HEAD", path)
    assert (status, headers["allow"], body) == ("HTTP/1.1 405 Method Not Allowed", "POST", b"")
    assert _answer(server, "HEAD", "/nowhere")[0] == "HTTP/1.1 404 Not Found"


def test_other_methods_are_told_of_head(server: RunningServer) -> None:
    for path in ROUTES:
        assert set(_answer(server, "PUT", path)[1]["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_is_counted_by_its_route_and_logged_as_one(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=ACCESS_LOG)
    _answer(server, "HEAD", "/healthz")
    assert server.requests("ok", "/healthz") == 1
    assert [line.getMessage() for line in caplog.records if line.name == ACCESS_LOG] == ["HEAD /healthz 200"]


def test_pages_of_other_origins_may_send_it(echo_runtime: EchoRuntime) -> None:
    origin = "https://page.example"
    wish = {"origin": origin, "access-control-request-method": "HEAD", "access-control-request-headers": "x-api-key"}
    with serving(echo_runtime, cors_origins=origin) as server:
        assert server.request("OPTIONS", "/model", headers=wish).status_code == 200
