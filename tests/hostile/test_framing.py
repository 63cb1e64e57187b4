"""Bodies whose end is told oddly, and what comes after it."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from tests.hostile.bystander import nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import ALIVE, ask, chunked, connect, post, post_chunked, read_to_end, request, statuses
from tests.image_files import pngs
from tests.runtimes import wait_until
from tests.told_metrics import told

IMAGE = pngs(1)[0]
_KEY = "aig_of-a-test"


@pytest.fixture(scope="module")
def guarded(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server that asks for a key, which may send ten images."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    digest = hashlib.sha256(_KEY.encode()).hexdigest()
    keys.write_text(f'[keys.one]\nsha256 = "{digest}"\nimages_per_second = 0.001\nburst_images = 10\n')
    with Victim(artifact, "--workers", "1", "--api-keys", str(keys)) as started:
        yield started


def test_trailer_is_read_and_counts_for_nothing(guarded: Victim) -> None:
    trailers = f"x-api-key: {_KEY}\r\nauthorization: bearer {_KEY}\r\nx-request-id: of-the-trailer\r\n\r\n".encode()
    body = chunked(IMAGE, trailers=trailers)
    assert ask(guarded.port, post_chunked(body)).status == 401
    with connect(guarded.port) as connection:
        connection.sendall(
            post_chunked(body, f"x-api-key: {_KEY}", close=False) + request("GET /nothing HTTP/1.1", "host: a")
        )
        answers = read_to_end(connection)
    assert statuses(answers) == [200, 401]
    assert b"of-the-trailer" not in answers


def test_forms_that_are_refused_are_paid_for(guarded: Victim) -> None:
    form = post(b"\r\n--bX" * 1000, f"x-api-key: {_KEY}", kind="multipart/form-data; boundary=b")
    answers = [ask(guarded.port, form).status for _ in range(15)]
    assert set(answers) == {400, 429}
    assert answers[-1] == 429


@pytest.mark.parametrize("trailer", [b"x: y\r\n", b"x: " + b"y" * 5000 + b"\r\n", b"x: " + b"y" * 5000, b"y:\r\n"])
def test_trailers_without_end_are_ended(victim: Victim, trailer: bytes) -> None:
    many = trailer * (1 + 1_000_000 // len(trailer))
    for target in ("/classify", "/nothing"):
        with nobody_is_harmed(victim), connect(victim.port) as connection:
            connection.sendall(post_chunked(b"0\r\n", target=target))
            assert _taken(connection, many, 150_000_000) < 20_000_000


def test_chunks_of_any_form_are_read_or_refused(victim: Victim) -> None:
    size = f"{len(IMAGE):x}".encode()
    sound = [size, b"0" * 10 + size, size.upper(), size + b";a=b", size + b';a="' + b"c" * 5000 + b'"', size + b"  "]
    broken = [b"1\r\naX", b"-1", b"0x10", b"", b" ", b"f" * 21, b"g", size + b"\r", b"\x00", b"1_0"]
    with nobody_is_harmed(victim):
        for size_told in sound:
            answer = ask(victim.port, post_chunked(size_told + b"\r\n" + IMAGE + b"\r\n0\r\n\r\n"))
            assert answer.status == 200, size_told
        for size_told, target in product(broken, ["/classify", "/nothing"]):
            with connect(victim.port) as connection:
                connection.sendall(post_chunked(size_told + b"\r\n" + IMAGE + b"\r\n0\r\n\r\n", target=target))
                assert statuses(read_to_end(connection)) in ([400], [404]), size_told


def test_body_that_is_no_http_is_counted_as_what_its_client_was_told(victim: Victim) -> None:
    def counted() -> list[float]:
        with victim.client() as client:
            samples = told(client.get("/metrics").text)
        return [
            samples.get(("aig_requests_total", frozenset({("route", "/classify"), ("outcome", outcome)})), 0.0)
            for outcome in ("malformed_request", "internal_error")
        ]

    malformed, internal = counted()
    # Refused for its type, by an answer that comes too late: uvicorn has given its own.
    with connect(victim.port) as connection:
        connection.sendall(
            request(
                "POST /classify HTTP/1.1",
                "host: a",
                "content-type: text/plain",
                "transfer-encoding: chunked",
                body=b"ZZ\r\nnonsense",
                close=False,
            )
        )
        assert statuses(read_to_end(connection)) == [400]
    wait_until(lambda: counted() == [malformed + 1, internal])


def test_extension_of_a_chunk_without_end_is_ended(victim: Victim) -> None:
    with nobody_is_harmed(victim), connect(victim.port) as connection:
        connection.sendall(post_chunked(b"1;"))
        assert _taken(connection, b"a" * 1_000_000, 50_000_000) < 20_000_000


def test_framing_that_two_could_read_in_two_ways_is_refused(victim: Victim) -> None:
    hidden = b"0\r\n\r\n" + ALIVE
    heads = [
        ["transfer-encoding: gzip, chunked"],
        ["transfer-encoding: chunked, gzip"],
        ["transfer-encoding: gzip"],
        ["transfer-encoding: identity"],
        ["transfer-encoding: xchunked"],
        ["transfer-encoding: chunked", "transfer-encoding: chunked"],
        ["transfer-encoding:\x0bchunked"],
        ["content-length: 5", "content-length: 6"],
        [f"content-length: {len(hidden)}", "content-length: 5"],
    ]
    with nobody_is_harmed(victim):
        for headers in heads:
            with connect(victim.port) as connection:
                connection.sendall(request("POST /classify HTTP/1.1", "host: a", *headers, body=hidden, close=False))
                assert statuses(read_to_end(connection)) in ([400], [501]), headers


def test_length_beside_chunks_does_not_count(victim: Victim) -> None:
    body = chunked(IMAGE)
    with nobody_is_harmed(victim), connect(victim.port) as connection:
        for length in (0, 5, len(body) + 1000):
            connection.sendall(post_chunked(body, f"content-length: {length}", close=False))
        connection.sendall(request("GET /nothing HTTP/1.1", "host: a"))
        answers = statuses(read_to_end(connection))
    # RFC 9112, section 6.3, lets a server refuse it or take the chunks.
    assert answers in ([400], [200, 200, 200, 404])


def test_old_client_that_expects_a_leave_gets_none(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        for wish, version, count in (
            ("100-continue", "1.0", 0),
            ("100-Continue", "1.1", 1),
            ("100-continue", "1.1", 1),
        ):
            with connect(victim.port) as connection:
                connection.sendall(post(IMAGE, f"expect: {wish}", version=version))
                assert statuses(read_to_end(connection)) == [100] * count + [200], version
        for wish in ("nothing", "100-continue, 100-continue", "x" * 5000):
            assert ask(victim.port, post(IMAGE, f"expect: {wish}")).status in (100, 200, 417)


def _taken(connection: socket.socket, piece: bytes, most: int) -> int:
    """How many bytes of the same again and again are taken before the server ends the connection."""
    taken = 0
    with suppress(ConnectionError):
        while taken < most:
            taken += connection.send(piece)
    return taken
