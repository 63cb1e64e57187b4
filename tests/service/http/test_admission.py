from __future__ import annotations

import pytest

from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.http_server import ask, form, http_serving, part, post

ORIGIN = "https://page.example"
REQUESTS = [post(solid(40)), form(part(solid(40), "files"), target="/classify/batch")]


@pytest.mark.parametrize("request_", REQUESTS, ids=["/classify", "/classify/batch"])
def test_page_of_another_origin_can_read_that_the_queue_is_full(echo_runtime: EchoRuntime, request_: bytes) -> None:
    asked = request_.replace(b"host: a", f"host: a\r\nOrigin: {ORIGIN}".encode())
    with http_serving(echo_runtime, queue_size=1, cors_origins=ORIGIN) as server:
        echo_runtime.hold()
        with server.connect() as running, server.connect() as waiting:
            running.sendall(post(solid(10)))
            echo_runtime.wait_until_running()
            waiting.sendall(post(solid(20)))
            wait_until(lambda: server.context.engine.queue_depth == 1)
            refused = ask(server, asked)
            unread = ask(server, request_)
            echo_runtime.release()
        for answer in (refused, unread):
            assert (answer.status, answer.body["error"]["type"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in refused.headers["access-control-expose-headers"]
        assert server.images("overloaded") == 2
