from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from service.engine.onnx_runtime import OnnxRuntime
from tests.image_files import encoded, hollow_png, photograph, pngs
from tests.service.http_server import EDGE, HttpServer, ask, form, http_serving, part, post

PNG = pngs(1)[0]
JPEG = encoded(photograph(50, 40), "JPEG")
LIMITS = {"max_bytes": 8000, "max_pixels": 10_000}


def _chunked(body: bytes) -> bytes:
    head = b"POST /classify HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


TYPED = part(PNG).replace(b"\r\n\r\n", b"\r\nContent-Type: image/png\r\n\r\n", 1)
TAKEN: dict[str, bytes] = {
    "PNG": post(PNG),
    "JPEG": post(JPEG, kind="image/jpeg"),
    "no type": post(PNG, kind=""),
    "curl's wrong type": post(PNG, kind="application/x-www-form-urlencoded"),
    "summary": post(PNG, target="/classify?graph=summary&top_k=2"),
    "no graph": post(PNG, target="/classify?graph=none"),
    "empty query": post(PNG, target="/classify?"),
    "own id": post(PNG, "X-Request-ID: mine", "x-request-id: other"),
    "deadline": post(PNG, "X-Request-Timeout-Ms: 20000.5"),
    "closing": post(PNG, "Connection: close"),
    "old protocol": post(PNG).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "origin": post(PNG, "Origin: https://page.example"),
    "form": form(part(PNG)),
    "form with types": form(TYPED, end=b"--edge--"),
    "form with an empty file": form(part(b"")),
    "form with a strange name": form(part(PNG, more='; filename="\xff;.png"')),
    "form of lines": form(part(b"\r\n--edg\r\n")),
    "form with quotes": form(part(PNG), kind='multipart/form-data; boundary="edge"'),
    "form with an epilogue": form(part(PNG), end=b"--edge--\r\nmore"),
    "form of two": form(part(PNG), part(PNG)),
    "form with text": form(part(PNG), part(b"x", "a", "")),
    "form of text": form(part(PNG, more="")),
    "form of another field": form(part(PNG, "image")),
    "form without fields": form(end=b"--edge--\r\n"),
    "form without end": form(part(PNG), end=b""),
    "form without boundary": form(part(PNG), kind="multipart/form-data"),
    "form that is none": post(PNG, kind=EDGE),
    "text": post(b"hello"),
    "half a JPEG": post(JPEG[: len(JPEG) // 2]),
    "too many pixels": post(hollow_png(9000, 9000)),
    "form of a broken file": form(part(JPEG[:-20])),
    "longest": post(PNG + bytes(8000 - len(PNG))),
    "form with too long a file": form(part(bytes(8001))),
}
LEFT: dict[str, bytes] = {
    "too many bytes": post(bytes(8001)),
    "form of too many bytes": form(part(bytes(13_000))),
    "empty": post(b""),
    "no length": b"POST /classify HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n\r\n",
    "chunked": _chunked(PNG),
    "chunked nothing": _chunked(b"").replace(b"0\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "type": post(PNG, kind="text/plain"),
    "unknown parameter": post(PNG, target="/classify?topk=3"),
    "invalid parameter": post(PNG, target="/classify?top_k=0"),
    "no time": post(PNG, "X-Request-Timeout-Ms: soon"),
    "method": post(PNG).replace(b"POST", b"PUT"),
    "path": post(PNG, target="/classify/"),
    "batch": form(part(PNG, "files"), target="/classify/batch"),
}


@pytest.fixture(scope="module")
def server(runtime: OnnxRuntime) -> Iterator[HttpServer]:
    with http_serving(runtime, **LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def application(runtime: OnnxRuntime) -> Iterator[HttpServer]:
    """The same, but the application answers everything."""
    with http_serving(runtime, direct=False, **LIMITS) as server:
        yield server


def _lasting(value: Any) -> Any:
    """What does not differ from one time to the next."""
    if isinstance(value, dict):
        return {name: _lasting(each) for name, each in value.items() if name not in ("timing_ms", "request_id")}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_answer_is_the_applications(server: HttpServer, application: HttpServer, name: str) -> None:
    request = (TAKEN | LEFT)[name]
    before = len(server.passed_on)
    actual, expected = ask(server, request), ask(application, request)
    assert (len(server.passed_on) == before) == (name in TAKEN)
    assert len(application.passed_on) > 0
    assert actual.status == expected.status
    assert _lasting(actual.body) == _lasting(expected.body)
    assert actual.headers.keys() == expected.headers.keys()
    varying = {"date", "content-length", "x-request-id"}
    assert {n: v for n, v in actual.headers.items() if n not in varying} == {
        n: v for n, v in expected.headers.items() if n not in varying
    }
    if "error" in actual.body:
        assert actual.body["error"]["request_id"] == actual.headers["x-request-id"]
    if name == "own id":
        assert actual.headers["x-request-id"] == expected.headers["x-request-id"] == "mine"


def test_both_ways_count_alike(runtime: OnnxRuntime) -> None:
    counts = []
    for direct in (True, False):
        with http_serving(runtime, direct, **LIMITS) as server:
            for request in (TAKEN | LEFT).values():
                ask(server, request)
            lines = server.context.metrics.render().decode().splitlines()
        kinds = ("aig_requests_total", "aig_images_total", "aig_block_", "aig_macs", "aig_skip_ratio", "aig_class_")
        counts.append([line for line in lines if line.startswith(kinds) or "_seconds_count" in line])
    assert counts[0] == counts[1]


def test_both_ways_log_alike(runtime: OnnxRuntime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service.access_log")
    told = []
    for direct in (True, False):
        caplog.clear()
        with http_serving(runtime, direct, access_log="on", **LIMITS) as server:
            for name in ("JPEG", "form", "text", "form of text", "form of two"):
                ask(server, TAKEN[name])
        lines = [record.__dict__["fields"] for record in caplog.records if record.name == "service.access_log"]
        told.append([{n: v for n, v in line.items() if not n.endswith("_ms")} for line in lines])
    assert told[0] == told[1]
    assert len(told[0]) == 5
