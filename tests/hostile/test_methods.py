"""Request lines and heads that HTTP allows, or nearly, and that no honest client sends here."""

from __future__ import annotations

from itertools import product

import pytest

from tests.hostile.bystander import nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import ALIVE, ask, connect, post, read_to_end, request, statuses
from tests.image_files import pngs

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "CONNECT", "OPTIONS", "TRACE", "PRI", "get", "BREW", "!#$%"]
TARGETS = ["/", "/classify", "/classify/batch", "/nothing", "*", "http://a/classify", "a:80", "//", "/%00%ff", "?", "#"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_method_is_answered_on_every_target(victim: Victim, version: str) -> None:
    with nobody_is_harmed(victim):
        for method, target in product(METHODS, TARGETS):
            answer = ask(victim.port, request(f"{method} {target} HTTP/{version}", "host: a"))
            allowed = {200, 404, 405} if method in ("GET", "HEAD") else {400, 404, 405, 415}
            assert answer.status in allowed, (method, target)
            assert not (method == "HEAD" and answer.body)


def test_connection_goes_on_after_any_method(victim: Victim) -> None:
    with nobody_is_harmed(victim), connect(victim.port) as connection:
        for method, target in product(METHODS, ["/", "/classify", "*"]):
            connection.sendall(request(f"{method} {target} HTTP/1.1", "host: a", close=False))
        connection.sendall(request("GET /healthz HTTP/1.1", "host: a"))
        answers = statuses(read_to_end(connection))
    assert len(answers) == 3 * len(METHODS) + 1
    assert answers[-1] == 200


@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "BREW"])
@pytest.mark.parametrize("wish", ["upgrade: h2c", "upgrade: websocket\r\nconnection: upgrade", "expect: 100-continue"])
def test_body_of_an_odd_method_is_no_request(victim: Victim, method: str, wish: str) -> None:
    line = f"{method} /classify HTTP/1.1"
    with nobody_is_harmed(victim), connect(victim.port) as connection:
        head = request(line, "host: a", wish, f"content-length: {len(ALIVE)}", close=False)
        connection.sendall(head + ALIVE + request("GET /nothing HTTP/1.1", "host: a"))
        answers = statuses(read_to_end(connection))
    # One that waits for leave to send its body is not followed by others.
    assert answers in ([405, 404], [405])


def test_request_needs_one_host(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        for hosts in ([], ["host: a", "host: a"], ["host: a", "host: b"]):
            for line in ("GET /healthz HTTP/1.1", "POST /classify HTTP/1.1", "GET /nothing HTTP/1.1"):
                assert ask(victim.port, request(line, *hosts)).status == 400
        assert ask(victim.port, request("GET /healthz HTTP/1.0")).status == 200
        assert ask(victim.port, request("GET /healthz HTTP/1.1", "host:")).status == 200


def test_what_is_no_request_is_refused(victim: Victim) -> None:
    odd = [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # as TLS begins
        b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\nx\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n: a\r\nhost: a\r\n\r\n",
    ]
    with nobody_is_harmed(victim):
        for text in odd:
            with connect(victim.port) as connection:
                connection.sendall(text)
                assert statuses(read_to_end(connection)) in ([400], [505]), text


def test_head_that_is_too_long_is_refused(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        for headers in (["x: " + "a" * 80_000], ["x:"] * 60_000, ["x: y"] * 60_000, ["connection: close"] * 20_000):
            assert _refused(victim, request("GET /healthz HTTP/1.1", "host: a", *headers))
        assert _refused(victim, request("GET /" + "a" * 80_000 + " HTTP/1.1", "host: a"))


def _refused(victim: Victim, asked: bytes) -> bool:
    """Whether a request is refused; who still sends may find the connection ended before it has read why."""
    with connect(victim.port) as connection:
        try:
            connection.sendall(asked)
            return statuses(read_to_end(connection)) in ([400], [431])
        except ConnectionError:
            return True


def test_header_that_counts_may_not_be_absurd(victim: Victim) -> None:
    (image,) = pngs(1)
    with nobody_is_harmed(victim):
        for headers in (
            ["x-request-id: " + "a" * 12_000],
            ["x-forwarded-prefix: " + "/a" * 6_000],
            ["x-forwarded-for: " + "1," * 6_000],
            ["cookie: " + "a=b; " * 2_400],
            ["accept-encoding: " + "gzip, " * 2_000],
            ["range: bytes=" + "0-1," * 3_000],
        ):
            assert ask(victim.port, post(image, *headers)).status == 200, headers[0][:20]
        for length in ("-1", "+5", "0x10", "1_000", "9" * 21, "9" * 5000, "5, 6", "", "٣"):
            line = request("POST /classify HTTP/1.1", "host: a", close=False)[:-2]
            with connect(victim.port) as connection:
                connection.sendall(line + f"content-length: {length}\r\n\r\n".encode())
                assert statuses(read_to_end(connection)) in ([400], [413]), length
