"""Requests that must be refused, each with the errors it may be given."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from PIL import Image

from bench.chaos.connection import form, head
from bench.chaos.harness import Harness
from bench.chaos.ledger import UNMATCHED

# The HTTP server says so itself, in plain text.
_NO_HTTP = frozenset({"http_400"})
_UPLOAD_MS = 300  # within which those who send slowly ask for their answer


@dataclass(frozen=True)
class HostileRequest:
    """What is sent, and what must come back.

    Attributes:
        name: of the kind.
        data: all of it, heads included.
        route: under which it is counted.
        outcomes: the errors it may be given.
        dribbled: whether it is sent in small pieces, and then not to its end.
        broken: whether its body turns into what is no HTTP: it is answered, and counted as malformed or as if
            its client had left.
        counted: whether it is a request at all.
        unanswered: whether its connection is closed without a word.
    """

    name: str
    data: bytes
    route: str
    outcomes: frozenset[str]
    dribbled: bool = False
    broken: bool = False
    counted: bool = True
    unanswered: bool = False


def hostile_requests(harness: Harness, random: Random) -> Iterator[HostileRequest]:
    """One of every kind, with random details."""
    yield from _bad_images(harness, random)
    yield from _bad_requests(harness, random)
    yield from _bad_http(random)
    yield from _slow(harness)


def _bad_images(harness: Harness, random: Random) -> Iterator[HostileRequest]:
    jpeg = random.choice(harness.gallery.pictures).data
    cut = jpeg[: random.randint(len(jpeg) // 10, len(jpeg) * 8 // 10)]
    large = random.randbytes(harness.max_bytes + random.randint(1, 100_000))
    bodies = {
        "no bytes": (b"", "empty_image"),
        "random bytes": (b"\0" + random.randbytes(random.randint(1, 5000)), "not_an_image"),
        "text": (b"<html>this is no image</html>", "not_an_image"),
        "truncated": (cut, "corrupt_image not_an_image"),
        "corrupt": (_corrupt_png(random), "corrupt_image"),
        "bomb of pixels": (_png(60_000, 60_000), "too_many_pixels"),
        "bomb of text": (_text_bomb(), "corrupt_image"),
        "too many bytes": (large, "image_too_large"),
    }
    for name, (body, outcomes) in bodies.items():
        yield _hostile(name, head("/classify", len(body)) + body, outcomes)
        if body:
            content_type, whole = form("file", [body])
            yield _hostile(f"{name}, as a form", head("/classify", len(whole), content_type) + whole, outcomes)
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (large[:70_000], large)) + b"0\r\n\r\n"
    yield _hostile(
        "too many bytes, chunked", head("/classify", None, Transfer_Encoding="chunked") + chunked, "image_too_large"
    )


def _bad_requests(harness: Harness, random: Random) -> Iterator[HostileRequest]:
    jpeg = random.choice(harness.gallery.pictures).data

    def raw(path: str = "/classify", content_type: str = "image/jpeg", **headers: object) -> bytes:
        return head(path, len(jpeg), content_type, **headers) + jpeg

    def formed(field: str, path: str = "/classify", files: int = 1) -> bytes:
        content_type, body = form(field, [jpeg] * files)
        return head(path, len(body), content_type) + body

    plain = b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--edge--\r\n'
    edge = "multipart/form-data; boundary=edge"
    batch = "/classify/batch"
    yield _hostile("wrong type", raw(content_type="text/html"), "unsupported_media_type")
    yield _hostile("wrong field", formed("picture"), "unknown_field")
    yield _hostile("no field", head("/classify", 10, edge) + b"--edge--\r\n", "missing_file")
    yield _hostile("a field that is no file", head("/classify", len(plain), edge) + plain, "not_a_file")
    yield _hostile("a form that is none", raw(content_type=edge), "malformed_request")
    yield _hostile("a form without boundary", raw(content_type="multipart/form-data"), "malformed_request")
    yield _hostile("unknown parameter", raw("/classify?topk=3"), "unknown_parameter")
    yield _hostile("invalid parameter", raw("/classify?top_k=0"), "invalid_parameter")
    yield _hostile("invalid timeout", raw(X_Request_Timeout_Ms="soon"), "invalid_parameter")
    yield _hostile("batch that is no form", raw(batch), "unsupported_media_type", batch)
    yield _hostile("too many images", formed("files", batch, harness.max_images + 1), "too_many_images", batch)
    yield _hostile("nowhere", head("/nowhere", 0), "not_found", UNMATCHED)


def _bad_http(random: Random) -> Iterator[HostileRequest]:
    post = b"POST /classify HTTP/1.1\r\nHost: chaos\r\n"
    endless = post + b"".join(
        b"X-%d: %s\r\n" % (number, bytes(1000).hex().encode()) for number in range(300)
    )  # longer than any packet
    malformed = {
        "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500),
        "no request line": b"GARBAGE\r\n\r\n",
        "a negative length": post + b"Content-Length: -5\r\n\r\n",
        "two lengths": post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "a coding that is not chunks": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "no host": b"POST /classify HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    }
    for name, data in malformed.items():
        yield HostileRequest(name, data, UNMATCHED, _NO_HTTP, counted=False)
    data = post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello"
    yield HostileRequest("a chunk of no size", data, "/classify", _NO_HTTP | {"overloaded"}, broken=True)
    yield HostileRequest("an endless head", endless, UNMATCHED, _NO_HTTP, counted=False)


def _slow(harness: Harness) -> Iterator[HostileRequest]:
    timeout: dict[str, Any] = {"X_Request_Timeout_Ms": _UPLOAD_MS}
    jpeg = harness.gallery.pictures[0].data
    yield _hostile("a dribbled body", head("/classify", 1000, **timeout) + jpeg[:200], "upload_timeout", dribbled=True)
    huge = head("/classify", None, Transfer_Encoding="chunked", **timeout) + b"7fffffffffffffff\r\n" + jpeg[:200]
    yield _hostile("a huge chunk, dribbled", huge, "upload_timeout", dribbled=True)
    head_only = head("/classify", 1000)[:-4] + b"\r\nX-Slow: " + b"a" * 200
    yield HostileRequest(
        "a dribbled head", head_only, UNMATCHED, frozenset(), dribbled=True, counted=False, unanswered=True
    )


def _hostile(name: str, data: bytes, outcomes: str, route: str = "/classify", dribbled: bool = False) -> HostileRequest:
    # Whoever comes while the queue is full is refused before anything is looked at; and a worker that is hurt may have
    # had this image.
    excuses = set() if route == UNMATCHED else {"overloaded", "worker_lost", "deadline_exceeded"}
    return HostileRequest(name, data, route, frozenset({*outcomes.split(), *excuses}), dribbled)


def _corrupt_png(random: Random) -> bytes:
    """A PNG with a damaged byte among those of its pixels."""
    file = io.BytesIO()
    Image.effect_noise((32, 32), 64).save(file, "PNG")
    data = bytearray(file.getvalue())
    start = data.index(b"IDAT") + 10
    data[random.randrange(start, start + 200)] ^= 0xFF
    return bytes(data)


@cache
def _text_bomb() -> bytes:
    """A PNG with a comment of 100 megabytes and few of its pixels."""
    return _png(40, 40, _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000))))


def _png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG that says it is so large and holds next to nothing."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
