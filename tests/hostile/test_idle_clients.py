"""Clients that do next to nothing, for as long as they are let."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from threading import Event, Thread

from tests.hostile.bystander import LONGEST_OPEN_S, nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import ALIVE, ask, connect, post, post_chunked, request
from tests.image_files import pngs

IMAGE = pngs(1)[0]
_HEAD = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"
_PROMISED = request("POST /nothing HTTP/1.1", "host: a", "content-length: 60000", close=False)
_LARGE = request("POST /nothing HTTP/1.1", "host: a", "content-length: 9000000", close=False)
# By kind: what is sent at once, and a byte of what is sent every half second after it; nothing, where that is empty.
_IDLE: dict[str, tuple[bytes, bytes]] = {
    "connection without a word": (b"", b""),
    "half a head": (_HEAD, b""),
    "head without end": (b"GET /healthz HTTP/1.1\r\nx: ", b"a"),
    "head of lines without end": (_HEAD, b"a: b\r\n"),
    "answered": (ALIVE, b""),
    "answered, then an empty line": (ALIVE + b"\r\n", b""),
    "answered, then empty lines": (ALIVE, b"\r\n"),
    "answered, then half a head": (ALIVE + _HEAD, b""),
    "answered, then a head without end": (ALIVE + b"GET / HTTP/1.1\r\nx: ", b"a"),
    "answered 404, the short body to come": (_PROMISED, b""),
    "answered 404, the short body in bytes": (_PROMISED, b"a"),
    "answered 404, the large body in bytes": (_LARGE, b"a"),
    "answered 404, chunks of a byte": (post_chunked(b"", target="/nothing", close=False), b"1\r\na\r\n"),
    "answered 404, trailers without end": (post_chunked(b"0\r\n", target="/nothing", close=False), b"a: b\r\n"),
    "answered 405, its leave awaited": (post(b"", "expect: 100-continue", target="/healthz", close=False), b""),
    "image of which nothing comes": (post(IMAGE, close=False)[: -len(IMAGE)], b""),
    "image in bytes": (post(bytes(9000), close=False)[:-9000], b"a"),
    "image in chunks of a byte": (post_chunked(b"", close=False), b"1\r\na\r\n"),
    "image in a chunk without end": (post_chunked(b"f" * 17 + b"\r\n", close=False), b"a"),
    "image, then trailers without end": (post_chunked(b"1\r\na\r\n0\r\n", close=False), b"a: b\r\n"),
    "answered image, then half an image": (post(IMAGE, close=False) + post(IMAGE, close=False)[:-5], b""),
    "upgrade": (request("GET /healthz HTTP/1.1", "host: a", "connection: upgrade", "upgrade: h2c", close=False), b"a"),
    "tunnel": (request("CONNECT a:80 HTTP/1.1", "host: a", close=False), b"a"),
    "form in bytes": (post(bytes(9000), kind="multipart/form-data; boundary=b", close=False)[:-9000], b"\r"),
}


def test_whoever_does_next_to_nothing_is_disconnected(victim: Victim) -> None:
    """All kinds at once, several of each, and those that never read what they asked for, or a byte a second."""
    over = Event()
    # An image that comes slowly has the ten seconds of a deadline, and its client one more to read the refusal.
    with nobody_is_harmed(victim), ExitStack() as stack:
        connections = {
            stack.enter_context(connect(victim.port)): (start, more) for start, more in _IDLE.values() for _ in range(3)
        }
        for connection, (start, _) in connections.items():
            connection.sendall(start)
        unread = [stack.enter_context(connect(victim.port)) for _ in range(6)]
        for connection in unread:
            connection.settimeout(0.3)
            with suppress(TimeoutError):
                for _ in range(100):
                    connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)

        def dribble() -> None:
            while not over.wait(0.5):
                for connection, (_, more) in connections.items():
                    with suppress(OSError):
                        connection.sendall(more)
                for connection in unread[3:]:
                    with suppress(OSError):
                        connection.recv(1)

        dribbler = Thread(target=dribble)
        dribbler.start()
        try:
            give_up = time.monotonic() + LONGEST_OPEN_S
            while _open(victim) and time.monotonic() < give_up:
                assert ask(victim.port, post(IMAGE), "127.0.0.3").status == 200
                time.sleep(0.5)
            numbers = {
                f"127.0.0.2:{connection.getsockname()[1]}": kind
                for kind, connection in zip(
                    [kind for kind in _IDLE for _ in range(3)] + ["never read"] * 3 + ["read slowly"] * 3,
                    [*connections, *unread],
                    strict=True,
                )
            }
            assert {numbers[end] for end in _open(victim)} == set()
        finally:
            over.set()
            dribbler.join()


def _open(victim: Victim) -> list[str]:
    return [end for end in victim.connections(but_of="127.0.0.99") if end.startswith("127.0.0.2:")]
