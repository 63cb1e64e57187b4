"""Images in JSON, as clients send them that can send nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest

from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.server import Server, serving


@pytest.fixture(scope="module")
def echo() -> Iterator[Server]:
    with serving(EchoRuntime(), max_bytes=5000) as started:
        yield started


def _classify(server: Server, body: bytes, path: str = "/classify") -> httpx.Response:
    return server.post(path, content=body, headers={"content-type": "application/json"})


def _json(file: bytes) -> bytes:
    return b'{"image": "%b"}' % base64.b64encode(file)


@pytest.mark.parametrize("path", ["/classify", "/models/echo/classify", "/models/echo/versions/1/classify"])
def test_image_in_json_is_answered_as_its_file(echo: Server, path: str) -> None:
    answers = [_classify(echo, _json(solid(7)), path), echo.post(path, content=solid(7))]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["predictions"] == answers[1].json()["predictions"]


@pytest.mark.parametrize(
    ("body", "status", "type_"),
    [
        (b"", 400, "malformed_request"),
        (b"{", 400, "malformed_request"),
        (b"[]", 400, "malformed_request"),
        (b'"aGVsbG8="', 400, "malformed_request"),
        (b'{"image": 7}', 400, "malformed_request"),
        (b'{"image": null}', 400, "malformed_request"),
        (b'{"image": "a"}', 400, "malformed_request"),
        (b'{"image": "aGVs bG8="}', 400, "malformed_request"),
        (b'{"image": "data:image/png;base64,aGVsbG8="}', 400, "malformed_request"),
        (b'{"image": ""}', 400, "empty_image"),
        (b"{}", 422, "missing_file"),
        (b'{"image": "aGVsbG8=", "file": "aGVsbG8="}', 422, "unknown_field"),
        (b'{"image": "aGVsbG8="}', 415, "not_an_image"),
        (b'{"image": [%b]}' % b",".join([b"0"] * 5000), 400, "malformed_request"),
        (b"[" * 10_001, 413, "json_too_large"),
        (_json(bytes(6000)), 413, "image_too_large"),
        (_json(bytes(60_000)), 413, "image_too_large"),
    ],
)
def test_what_is_no_image_in_json_is_refused(echo: Server, body: bytes, status: int, type_: str) -> None:
    response = _classify(echo, body)
    assert (response.status_code, response.json()["error"]["type"]) == (status, type_)


def test_several_images_are_not_taken_in_json(echo: Server) -> None:
    response = _classify(echo, _json(solid(7)), "/classify/batch")
    assert (response.status_code, response.json()["error"]["type"]) == (415, "unsupported_media_type")
