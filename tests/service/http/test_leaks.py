"""No answer tells what the server's files are called or where its code failed."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest

from service.engine import errors as engine_errors
from service.engine.runtimes.base import Runtime
from service.images import decoding as images
from tests.image_files import encoded, hollow_png, photograph, solid
from tests.runtimes import EchoRuntime
from tests.service.server import Server, serving

PATH = "/srv/models/secret/model.onnx"
INTERNALS = re.compile(
    r'Traceback|File "|\.py\b|line \d+|0x[0-9a-f]{6}|<[^>]* object|(?<![\w<])/(srv|usr|home|tmp|work|opt)\b'
)


def _assert_tells_nothing(response: httpx.Response) -> None:
    assert response.json().keys() == {"error"}
    assert not INTERNALS.search(response.text), response.text
    assert not any(INTERNALS.search(value) for value in response.headers.values())


JPEG = encoded(photograph(50, 40), "JPEG")
REFUSALS: dict[str, Callable[[Server], httpx.Response]] = {
    "empty_image": lambda server: server.classify(b""),
    "not_an_image": lambda server: server.classify(b"text"),
    "corrupt_image": lambda server: server.classify(JPEG[:-30]),
    "too_many_pixels": lambda server: server.classify(hollow_png(9000, 9000)),
    "image_too_large": lambda server: server.classify(bytes(9000)),
    "unsupported_media_type": lambda server: server.classify(JPEG, content_type="text/x-" + "y" * 50),
    "malformed_request": lambda server: server.classify(JPEG, content_type="multipart/form-data; boundary=a"),
    "missing_file": lambda server: server.classify(b"--a--\r\n", content_type="multipart/form-data; boundary=a"),
    "unknown_field": lambda server: server.post("/classify", files={"image": JPEG}),
    "not_a_file": lambda server: server.post("/classify", files={"file": (None, "text")}),
    "too_many_images": lambda server: server.classify_batch([JPEG] * 9),
    "unknown_parameter": lambda server: server.classify(JPEG, "?a=b"),
    "invalid_parameter": lambda server: server.classify(JPEG, "?top_k=x"),
    "not_found": lambda server: server.get("/nowhere"),
    "method_not_allowed": lambda server: server.get("/classify"),
}


@pytest.mark.parametrize("type_", REFUSALS)
def test_refusal_tells_nothing_of_the_server(server: Server, type_: str) -> None:
    response = REFUSALS[type_](server)
    assert response.json()["error"]["type"] == type_
    _assert_tells_nothing(response)


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (OSError(2, "No such file or directory", PATH), "inference_failed"),
        (RuntimeError(f'Traceback\n  File "{PATH}", line 3'), "inference_failed"),
    ],
)
def test_runtime_that_names_a_file_is_not_quoted(error: Exception, type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Runtime = EchoRuntime()
    with serving(runtime) as server:

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(runtime, "run", fail)
        response = server.classify(solid(1))
        batch = server.classify_batch([solid(1), solid(2)])
    assert (response.status_code, response.json()["error"]["type"]) == (500, type_)
    _assert_tells_nothing(response)
    assert not INTERNALS.search(batch.text)


@pytest.mark.parametrize("error", [MemoryError(PATH), OSError(2, "No such file", PATH), KeyError(PATH)])
@pytest.mark.parametrize("kind", ["decoder", "engine"])
def test_exception_nobody_expected_is_not_quoted(
    error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    def fail(*_: object) -> None:
        raise error

    if kind == "decoder":
        monkeypatch.setattr(images.ImageDecoder, "check_bytes", fail)
    else:
        monkeypatch.setattr(server.context.engine, "submit", fail)
    response = server.classify(solid(1))
    assert (response.status_code, response.json()["error"]["type"]) == (500, "internal_error")
    _assert_tells_nothing(response)
    assert not INTERNALS.search(server.classify_batch([solid(1)]).text)


@pytest.mark.parametrize("kind", [engine_errors.WorkerLost, engine_errors.Overloaded])
def test_engine_error_is_told_in_its_own_words(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    def fail(*_: object) -> None:
        raise kind(1)

    monkeypatch.setattr(server.context.engine, "submit", fail)
    _assert_tells_nothing(server.classify(solid(1)))
