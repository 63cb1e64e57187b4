"""Sequences of requests, right and wrong, cut into packets anywhere and ended in every way, sent to a real server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.bystander import LONGEST_WAIT_S, nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.watcher import ask
from tests.hostile.wire import chunked, connect
from tests.image_files import pngs

# An example takes some 30 ms: some seconds in a test run, about ten minutes in `make fuzz`.
_EXAMPLES = 150 if settings.default.derandomize else 20_000

IMAGE = pngs(1)[0]
METHODS = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS", b"TRACE", b"PRI", b"x", b"", b"\x16"]
)
PATHS = [b"/", b"/classify", b"/classify/batch", b"/healthz", b"/metrics", b"/nothing", b"*", b"http://a/", b"a:1", b""]
TARGETS = st.sampled_from(PATHS) | st.binary(max_size=20)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"http/1.1", b""])
NAMES = [
    b"host", b"connection", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"expect",
    b"upgrade", b"x-request-id", b"x-request-timeout-ms", b"x-forwarded-prefix", b"origin", b"range", b"te", b"x y",
]  # fmt: skip
VALUES = [
    b"a", b"close", b"keep-alive", b"upgrade", b"5", b"0", b"-1", b"99999999", b"1, 1", b"chunked", b"gzip, chunked",
    b"image/png", b"multipart/form-data; boundary=b", b"multipart/form-data; charset=punycode; boundary=b",
    b"gzip", b"100-continue", b"h2c", b"websocket", b"nan", b"/a/b", b"a" * 9000, b"",
]  # fmt: skip
HEADERS = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=20))
BODIES = st.sampled_from([b"", b"a", IMAGE, IMAGE * 3, b"\r\n--b" * 5000, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"])
TRAILERS = st.sampled_from(
    [b"\r\n"] * 3 + [b"x-api-key: a\r\n\r\n", b"a: b\r\n" * 3000, b"a: ", b"content-length: 5\r\n\r\n"]
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """The lines of a head that tell of a body, and the body, which may be as they tell."""
    body = draw(BODIES)
    framing = draw(
        st.sampled_from(["length", "length", "wrong", "none", "chunks", "chunks", "tiny chunks", "extended"])
    )
    if framing == "length":
        return [b"content-length: %d" % len(body)], body
    if framing == "wrong":
        return [b"content-length: %d" % max(0, len(body) + draw(st.integers(-100, 100)))], body
    if framing == "none":
        return [], body
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=5)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True) if start < end]
    if framing == "tiny chunks":
        chunks = [body[at : at + 1] for at in range(min(len(body), 3000))]
    told = chunked(*chunks, trailers=draw(TRAILERS))
    if framing == "extended":
        told = told.replace(b"\r\n", b";a=b\r\n", draw(st.integers(0, 3)))
    return [b"transfer-encoding: chunked"], told


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, which may be as it should be."""
    lines, body = draw(bodies())
    lines += [b"host: a"] * draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
    lines += [name + b": " + value for name, value in draw(st.lists(HEADERS, max_size=4))]
    lines += [b"x:"] * draw(st.sampled_from([0] * 9 + [3000]))
    line = b" ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)])
    return b"\r\n".join([line, *draw(st.permutations(lines)), b"", b""]) + body


@pytest.fixture(scope="module")
def victim(artifact: Path) -> Iterator[Victim]:
    """A server that must be in the end as it was in the beginning."""
    with Victim(artifact, "--workers", "1") as started, nobody_is_harmed(started):
        yield started


@settings(max_examples=_EXAMPLES)
@given(
    sent=st.lists(requests(), min_size=1, max_size=6).map(b"".join),
    cuts=st.lists(st.floats(0, 1), max_size=6),
    repeats=st.sampled_from([1, 1, 1, 20]),
    end=st.sampled_from(["close", "half", "reset", "silence"]),
)
def test_others_are_served_whatever_comes(
    victim: Victim, sent: bytes, cuts: Sequence[float], repeats: int, end: str
) -> None:
    sent *= repeats
    logged = len(victim.lines)
    places = sorted(int(cut * len(sent)) for cut in cuts)
    with connect(victim.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        connection.settimeout(0.02)
        with suppress(OSError):
            for start, stop in zip([0, *places], [*places, len(sent)], strict=True):
                connection.sendall(sent[start:stop])
        with suppress(OSError):
            if end == "half":
                connection.shutdown(socket.SHUT_WR)
            while end in ("half", "silence") and connection.recv(1 << 16):
                pass
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ask(victim.port, victim.pid) < LONGEST_WAIT_S
    assert victim.lines[logged:] == []
