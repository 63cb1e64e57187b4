from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtimes import EchoRuntime, wait_until
from tests.service.http_server import EDGE, RunningServer, http_serving, read_answer

LIMITS = {"max_bytes": 8000, "max_images": 2}
# Of the files, and of the lines about each in a form.
LONGEST_FORM = 8000 + 4096


@pytest.fixture
def server(echo_runtime: EchoRuntime) -> Iterator[RunningServer]:
    with http_serving(echo_runtime, **LIMITS) as server:
        yield server


def _head(route: str, kind: str, length: int, *lines: str) -> bytes:
    first = [f"POST {route} HTTP/1.1", "host: a", f"content-type: {kind}", f"content-length: {length}"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("route", "kind", "longest"),
    [
        ("/classify", "image/png", 8000),
        ("/classify", EDGE, LONGEST_FORM),
        ("/classify/batch", EDGE, 2 * LONGEST_FORM),
    ],
)
def test_body_that_its_head_says_is_too_long_is_not_waited_for(
    server: RunningServer, route: str, kind: str, longest: int
) -> None:
    for lines in ((), ("Expect: 100-continue",)):
        with server.connect() as connection:
            connection.sendall(_head(route, kind, longest + 1, *lines))
            answer = read_answer(connection)
        assert (answer.status, answer.body["error"]["type"]) == (413, "image_too_large")
        assert f"more than {longest} bytes" in answer.body["error"]["message"]
    wait_until(lambda: server.requests("image_too_large", route) == 2)  # which are counted when they have been answered
    assert server.images("image_too_large") == 2
    with server.connect() as connection:
        connection.sendall(_head(route, kind, longest, "Expect: 100-continue"))
        assert connection.recv(12) == b"HTTP/1.1 100"


def test_body_that_cannot_be_held_is_not_waited_for_either(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, max_pending_bytes=500) as server, server.connect() as connection:
        connection.sendall(_head("/classify", "image/png", 501))
        assert read_answer(connection).status == 413
