"""Bodies and content types that made the form parsers of others wait, fail or use up files."""

from __future__ import annotations

import encodings.aliases
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hostile.bystander import nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import ask, connect, post, read_to_end, statuses
from tests.image_files import pngs
from tests.processes import processor_s

IMAGE = pngs(1)[0]
_CODECS = sorted({*encodings.aliases.aliases.values(), "undefined", "punycode", "idna", "unicode_escape", "utf-8-sig"})


def _part(data: bytes, name: bytes = b"file", filename: bytes = b'; filename="a.png"', more: bytes = b"") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="'
        + name
        + b'"'
        + filename
        + b"\r\n"
        + more
        + b"\r\n"
        + data
        + b"\r\n"
    )


def _form(*parts: bytes, kind: str = "multipart/form-data; boundary=b", target: str = "/classify") -> bytes:
    return post(b"".join(parts) + b"--b--\r\n", kind=kind, target=target)


@pytest.mark.parametrize("text", [b"a" * 512_000, b"\xff" * 512_000, b"-" * 512_000, b"+AAA" * 128_000])
def test_charset_of_a_form_is_no_business_of_the_server(victim: Victim, text: bytes) -> None:
    with nobody_is_harmed(victim):
        for codec in (*_CODECS, "no-such-codec", '"a;b"', "a" * 5000):
            kind = f"multipart/form-data; charset={codec}; boundary=b"
            typed = b"Content-Type: text/plain; charset=" + codec.encode() + b"\r\n"
            began_s, _ = processor_s(victim.pid)
            answer = ask(victim.port, _form(_part(text, filename=b"", more=typed[:4000]), kind=kind))
            assert (answer.status, answer.error) in ((422, "not_a_file"), (400, "malformed_request")), codec
            assert processor_s(victim.pid)[0] < began_s + 1.0, codec
            named = _part(IMAGE, filename=b'; filename="' + text[:2000] + b'"', more=typed[:4000])
            assert ask(victim.port, _form(named, kind=kind)).status in (200, 400), codec


@pytest.mark.parametrize(
    "piece", [b"\r\n--bX", b"\r\n--b", b"\r\n--b\r\n", b"\r\n--b\r\n\r\n", b"\r", b"\r\n-", b"--b\n"]
)
@pytest.mark.parametrize("target", ["/classify", "/classify/batch"])
def test_form_of_what_is_nearly_a_boundary(victim: Victim, piece: bytes, target: str) -> None:
    name = b"files" if target.endswith("batch") else b"file"
    bodies = [piece, _part(b"", name=name)[:-2] + piece, b"--b\r\n" + piece]
    with nobody_is_harmed(victim):
        for start in bodies:
            body = start + piece * ((19_900_000 - len(start)) // len(piece))
            answer = ask(victim.port, post(body, kind="multipart/form-data; boundary=b", target=target))
            assert answer.status in (400, 413, 415, 422)


def test_form_whose_header_lines_have_no_end(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        for lines in (
            b"a: b\r\n" * 3_000_000,
            b"a" * 19_000_000,
            b"Content-Disposition: form-data" + b"; a=b" * 3_000_000,
        ):
            body = b"--b\r\n" + lines
            assert ask(victim.port, post(body, kind="multipart/form-data; boundary=b")).status in (400, 422)
        disposition = b"Content-Disposition: form-data; " + b'a="\\' * 1000 + b"\r\n\r\n"
        body = (b"--b\r\n" + disposition) * 4000
        assert ask(victim.port, post(body, kind="multipart/form-data; boundary=b")).status in (400, 422)


def test_parts_of_a_batch_open_no_files(victim: Victim) -> None:
    parts = [_part(IMAGE + bytes(1_060_000), name=b"files") for _ in range(15)]
    whole = _form(*parts, target="/classify/batch")
    before = victim.files()
    with nobody_is_harmed(victim, most_mb_meanwhile=700), ThreadPoolExecutor(20) as clients:
        connections = [connect(victim.port) for _ in range(20)]
        list(clients.map(lambda connection: connection.sendall(whole[:-100]), connections))
        time.sleep(0.3)
        assert victim.files() < before + len(connections) + 10
        list(clients.map(lambda connection: connection.sendall(whole[-100:]), connections))
        answers = [statuses(read_to_end(connection)) for connection in connections]
        for connection in connections:
            connection.close()
    assert {status for [status] in answers} <= {200, 429}
    assert [200] in answers


def test_image_may_come_as_what_clients_call_anything(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        for kind in (
            "binary/octet-stream",
            "application/octet-stream",
            "image/png",
            "image/x",
            "Binary/Octet-Stream; a=b",
        ):
            assert ask(victim.port, post(IMAGE, kind=kind)).status == 200, kind
        for kind in ("text/plain", "application/xml", "x", "multipart/mixed; boundary=b", "a" * 12_000, "image"):
            answer = ask(victim.port, post(IMAGE, kind=kind))
            assert (answer.status, answer.error) == (415, "unsupported_media_type"), kind[:20]
        for encoding in ("gzip", "deflate, gzip", "br", "GZIP", "x" * 5000):
            answer = ask(victim.port, post(IMAGE, f"content-encoding: {encoding}"))
            assert (answer.status, answer.error) == (415, "unsupported_encoding"), encoding[:20]
        assert ask(victim.port, post(IMAGE, "content-encoding: identity")).status == 200
