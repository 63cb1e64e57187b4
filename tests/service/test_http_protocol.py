from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.http_answer import Refusal
from service.http_protocol import Guard, Headers, guarded_protocol
from service.schemas import RequestErrorDetail
from tests.runtimes import PATIENCE_S, wait_until

BUSY = Refusal(429, RequestErrorDetail(type="overloaded", message="come back later", request_id="an-id"), 7)
REQUEST = b"POST /images HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nimage"


class Application:
    """Answers with the body it was sent, after the whole of it has come.

    Attributes:
        bodies: what it was sent.
        noted: what the protocol answered to what was no request.
        departures: how often it was told that the client is gone.
        busy: whether requests are to be refused by their head.
        url: where it is served.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.noted: list[Refusal] = []
        self.departures = 0
        self.busy = False
        self.port = 0

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.departures += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    def refusal(self, _: str, path: str, __: Headers) -> Refusal | None:
        return BUSY if self.busy and path == "/images" else None

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)


@contextmanager
def _serving(receive_s: float = PATIENCE_S, max_connections: int = 100) -> Iterator[Application]:
    app = Application()
    guard = Guard(receive_s, max_connections, app.refusal, app.noted.append)
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, http=guarded_protocol(guard))  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    wait_until(lambda: server.started)
    app.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture
def app() -> Iterator[Application]:
    with _serving() as app:
        yield app


def _until_closed(connection: socket.socket) -> bytes:
    received = b""
    while more := connection.recv(65536):
        received += more
    return received


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: its status, headers and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    size = int(headers["content-length"])
    body = b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return int(lines[0].split()[1]), headers, body


def _error(body: bytes) -> str:
    return json.loads(body)["error"]["type"]


def test_request_is_answered_by_the_application(app: Application) -> None:
    with app.connect() as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert _answer(connection)[::2] == (200, b"image")
    assert app.bodies == [b"image"] * 3
    assert app.noted == []


def test_request_refused_by_its_head_never_reaches_the_application(app: Application) -> None:
    app.busy = True
    with app.connect() as connection:
        connection.sendall(REQUEST)
        status, headers, body = _answer(connection)
        assert (status, _error(body), headers["retry-after"]) == (429, "overloaded", "7")
        assert (headers["content-type"], headers["x-request-id"]) == ("application/json", "an-id")
        assert "connection" not in headers
        app.busy = False
        connection.sendall(REQUEST)  # the body of the refused one is not taken for a request
        assert _answer(connection)[::2] == (200, b"image")
    assert app.bodies == [b"image"]


def test_client_that_keeps_no_connections_is_refused_and_disconnected(app: Application) -> None:
    app.busy = True
    with app.connect() as connection:
        connection.sendall(REQUEST.replace(b"host: a", b"host: a\r\nconnection: close"))
        status, headers, _ = _answer(connection)
        assert (status, headers["connection"]) == (429, "close")
        assert connection.recv(1) == b""


def test_a_thousand_requests_in_one_packet_are_refused_one_by_one(app: Application) -> None:
    app.busy = True
    with app.connect() as connection:
        connection.sendall(REQUEST * 3000)
        assert {_answer(connection)[0] for _ in range(3000)} == {429}


def test_requests_refused_behind_one_that_is_being_answered_wait_for_their_turn(app: Application) -> None:
    with app.connect() as connection:
        connection.sendall(b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nfir")
        app.busy = True
        connection.sendall(b"st" + REQUEST * 2000)
        assert _answer(connection)[::2] == (200, b"first")
        assert {_answer(connection)[0] for _ in range(2000)} == {429}


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
        b"GET\r\n\r\n",
        b"POST /images HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_typed_error(app: Application, nonsense: bytes) -> None:
    with app.connect() as connection:
        connection.sendall(nonsense)
        status, headers, body = _answer(connection)
        assert (status, _error(body), headers["connection"]) == (400, "malformed_request", "close")
        assert headers["x-request-id"] == json.loads(body)["error"]["request_id"]
        assert connection.recv(1) == b""
    assert [refusal.error.type for refusal in app.noted] == ["malformed_request"]


@pytest.mark.parametrize("chunk", [b"zz\r\nhello", b"f" * 17 + b"\r\nhello"], ids=["no size", "absurd size"])
def test_body_that_turns_into_nonsense_gets_a_typed_error_and_is_no_other_request(
    app: Application, chunk: bytes
) -> None:
    head = REQUEST.replace(b"content-length: 5", b"transfer-encoding: chunked")[: -len(b"image")]
    with app.connect() as connection:
        connection.sendall(head + chunk)
        status, headers, body = _answer(connection)
        assert (status, _error(body), headers["connection"]) == (400, "malformed_request", "close")
        assert connection.recv(1) == b""
    app.busy = True
    with app.connect() as connection:
        connection.sendall(head + chunk)
        assert _answer(connection)[0] == 429
        assert connection.recv(1) == b""  # and no second answer to one request
    wait_until(lambda: app.departures == 1)
    assert (app.bodies, app.noted) == ([], [])


@pytest.mark.parametrize("line", [b"x-long: " + b"a" * 200_000, b"x: y\r\n" * 40_000, b""])
def test_head_that_does_not_end_is_refused(app: Application, line: bytes) -> None:
    with app.connect() as connection:
        start = b"GET /" if line == b"" else b"GET / HTTP/1.1\r\n"
        try:
            connection.sendall(start)
            for _ in range(20):
                connection.sendall(line or b"a" * 65536)
            answer = _until_closed(connection)
        except ConnectionError:  # closed before all was sent, which may take the answer with it
            answer = b""
    wait_until(lambda: bool(app.noted))
    assert app.noted[0].status == 431
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


def test_head_of_an_ordinary_size_is_no_matter_how_it_is_cut(app: Application) -> None:
    head = b"POST /images HTTP/1.1\r\nhost: a\r\nx-long: " + b"a" * 30_000 + b"\r\ncontent-length: 5\r\n\r\nimage"
    with app.connect() as connection:
        for _ in range(4):  # four heads are longer than one may be
            for start in range(0, len(head), 5000):
                connection.sendall(head[start : start + 5000])
            assert _answer(connection)[0] == 200


def test_next_head_is_not_measured_with_the_body_before_it(app: Application) -> None:
    body = bytes(200_000)
    request = b"POST /images HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with app.connect() as connection:
        connection.sendall(request + REQUEST[:20])
        assert _answer(connection)[0] == 200
        connection.sendall(REQUEST[20:])
        assert _answer(connection)[::2] == (200, b"image")


@pytest.mark.parametrize(
    "send", [lambda _: None, lambda connection: connection.sendall(b"POST /images HTTP/1.1\r\nhost: ")]
)
def test_client_that_sends_no_head_is_disconnected(send: Callable[[socket.socket], None]) -> None:
    with _serving(receive_s=0.2) as app, app.connect() as connection:
        send(connection)
        answer = _until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert _error(answer.split(b"\r\n\r\n")[1]) == "upload_timeout"


def test_client_that_dribbles_its_head_is_disconnected_all_the_same() -> None:
    with _serving(receive_s=0.3) as app, app.connect() as connection:
        connection.sendall(b"POST /images HTTP/1.1\r\n")
        connection.settimeout(0.05)
        received = None
        for _ in range(200):
            try:
                connection.sendall(b"x: y\r\n")
                received = connection.recv(65536)
                break
            except TimeoutError:
                continue
        assert received is not None
        assert received.startswith(b"HTTP/1.1 408 ")


def test_body_of_a_refused_request_cannot_be_dribbled_for_ever() -> None:
    with _serving(receive_s=0.3) as app, app.connect() as connection:
        app.busy = True
        connection.sendall(REQUEST.replace(b"content-length: 5", b"content-length: 99999"))
        assert _answer(connection)[0] == 429
        closed = False
        for _ in range(200):
            try:
                connection.settimeout(0.05)
                connection.sendall(b"a")
                closed = connection.recv(1) == b""
                break
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
                break
        assert closed


def test_connection_that_waits_between_requests_is_not_late() -> None:
    with _serving(receive_s=0.2) as app, app.connect() as connection:
        connection.sendall(REQUEST)
        assert _answer(connection)[0] == 200
        connection.settimeout(0.6)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.sendall(REQUEST)
        assert _answer(connection)[0] == 200


def test_connections_above_the_limit_are_turned_away() -> None:
    with _serving(max_connections=2) as app:
        with app.connect() as first, app.connect() as second:
            for connection in (first, second):
                connection.sendall(REQUEST)
                assert _answer(connection)[0] == 200
            with app.connect() as third:
                answer = _until_closed(third)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert _error(answer.split(b"\r\n\r\n")[1]) == "too_many_connections"
        with app.connect() as fourth:
            fourth.sendall(REQUEST)
            assert _answer(fourth)[0] == 200
