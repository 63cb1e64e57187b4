from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import encoded, hollow_png, photograph, pngs
from tests.service.server import Server, serving

SOUND = pngs(1)[0]
NOISE = encoded(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))  # hardly compresses
JPEG, PNG = encoded(photograph(50, 40), "JPEG"), encoded(photograph(30, 20))
LIMIT = 8000


@pytest.fixture
def server(server: Server) -> Iterator[Server]:
    """The service, which must work after every refusal as it did before."""
    before = server.classify(SOUND).json()["predictions"]
    yield server
    after = server.classify(SOUND)
    assert (after.status_code, after.json().get("predictions")) == (200, before)


def _assert_refused(response: httpx.Response, status: int, type_: str, *words: str) -> None:
    assert (response.status_code, response.json().get("error", {}).get("type")) == (status, type_), response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    assert response.json()["error"].keys() == {"type", "message", "request_id"}
    message = response.json()["error"]["message"]
    assert message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("data", "status", "type_"),
    [
        (b"", 400, "empty_image"),
        (b"hello, I am a text file\n" * 9, 415, "not_an_image"),
        (b"\0" * 200, 415, "not_an_image"),
        (b"%PDF-1.7\n" + b"x" * 200, 415, "not_an_image"),
        (encoded(photograph(20, 20), "ICO"), 415, "not_an_image"),  # Pillow could, but it is not on the list
        (encoded(photograph(20, 20), "PPM"), 415, "not_an_image"),
        (JPEG[: len(JPEG) // 2], 422, "corrupt_image"),
        (JPEG[:-20], 422, "corrupt_image"),
        (PNG[: len(PNG) // 2], 422, "corrupt_image"),
        (PNG[:60], 422, "corrupt_image"),
        (PNG[:400] + b"\xff" * 40 + PNG[440:], 422, "corrupt_image"),
        (encoded(Image.new("RGB", (101, 100))), 413, "too_many_pixels"),
        (hollow_png(9000, 9000), 413, "too_many_pixels"),
        (hollow_png(50_000, 50_000), 413, "too_many_pixels"),
        (hollow_png(2**31 - 1, 2**31 - 1), 413, "too_many_pixels"),
        (hollow_png(0, 0), 422, "corrupt_image"),
        (NOISE, 413, "image_too_large"),
    ],
    ids=[
        "empty",
        "text",
        "zeros",
        "PDF",
        "format that is not read",
        "another",
        "half a JPEG",
        "JPEG without its end",
        "half a PNG",
        "PNG header alone",
        "PNG with a broken middle",
        "101 x 100",
        "9000 x 9000",
        "decompression bomb",
        "largest bomb",
        "0 x 0",
        "too many bytes",
    ],
)
@pytest.mark.parametrize("way", ["classify", "classify_file"])
def test_bad_image_is_refused(server: Server, way: str, data: bytes, status: int, type_: str) -> None:
    _assert_refused(getattr(server, way)(data), status, type_)


def test_largest_image_allowed_is_classified(server: Server) -> None:
    padded = SOUND + bytes(LIMIT - len(SOUND))
    assert server.classify(padded).status_code == 200
    assert server.classify_file(padded).status_code == 200
    _assert_refused(server.classify(padded + b"\0"), 413, "image_too_large", "8000")
    _assert_refused(server.classify_file(padded + b"\0"), 413, "image_too_large", "8000")
    assert server.classify(encoded(Image.new("RGB", (100, 100)))).status_code == 200


@pytest.mark.parametrize("form", [True, False])
def test_body_without_end_is_cut_off(server: Server, form: bool) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        if form:
            yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while True:
            sent += 1000
            yield bytes(1000)

    kind = "multipart/form-data; boundary=edge" if form else "image/png"
    _assert_refused(server.post("/classify", content=endless(), headers={"content-type": kind}), 413, "image_too_large")
    # What came after the answer was dropped: it was only received so that the client can read the answer.
    assert sent <= 65_000_000
    assert server.context.memory.held == 0


def test_large_form_is_cut_off_after_it_was_spooled_to_disk(runtime: OnnxRuntime) -> None:
    async def of_no_known_length() -> AsyncIterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield bytes(100_000)

    # Forms of more than a megabyte go through a temporary file, which must be closed again: a leak is a warning, and
    # warnings are errors here.
    with serving(runtime, max_bytes=1_500_000) as server:
        kind = {"content-type": "multipart/form-data; boundary=edge"}
        _assert_refused(server.post("/classify", content=of_no_known_length(), headers=kind), 413, "image_too_large")
        _assert_refused(server.classify_file(bytes(1_400_000)), 415, "not_an_image")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "video/mp4", "application/pdf", "nonsense"])
def test_other_content_type_is_refused(server: Server, content_type: str) -> None:
    _assert_refused(server.classify(SOUND, content_type=content_type), 415, "unsupported_media_type", content_type)


@pytest.mark.parametrize(
    ("query", "type_", "name"),
    [
        ("?topk=3", "unknown_parameter", "'topk'"),
        ("?top_k=3&colour=red", "unknown_parameter", "'colour'"),
        ("?top_k=0", "invalid_parameter", "top_k"),
        ("?top_k=-1", "invalid_parameter", "top_k"),
        ("?top_k=1001", "invalid_parameter", "top_k"),
        ("?top_k=many", "invalid_parameter", "top_k"),
        ("?top_k=1.5", "invalid_parameter", "top_k"),
        ("?top_k=", "invalid_parameter", "top_k"),
        ("?graph=all", "invalid_parameter", "graph"),
    ],
)
@pytest.mark.parametrize("way", ["/classify", "/classify/batch"])
def test_wrong_parameter_is_refused(server: Server, way: str, query: str, type_: str, name: str) -> None:
    files = [("file" if way == "/classify" else "files", ("a.png", SOUND))]
    _assert_refused(server.post(way + query, files=files), 422, type_, name)


def _part(name: str, content: Any = ("a.png", SOUND)) -> tuple[str, Any]:
    return name, content


TEXT = (None, "no file")


@pytest.mark.parametrize(
    ("path", "parts", "type_", "word"),
    [
        ("/classify", [_part("image")], "unknown_field", "'image'"),
        ("/classify", [_part("files")], "unknown_field", "'files'"),
        ("/classify", [_part("file"), _part("extra", TEXT)], "unknown_field", "'extra'"),
        ("/classify", [_part("file", TEXT)], "not_a_file", "'file'"),
        ("/classify", [_part("file"), _part("file", TEXT)], "not_a_file", "'file'"),
        ("/classify", [_part("file")] * 2, "too_many_images", "1"),
        ("/classify", [_part("file")] * 3, "too_many_images", "1"),
        ("/classify/batch", [_part("file")], "unknown_field", "'file'"),
        ("/classify/batch", [_part("files"), _part("files", TEXT)], "not_a_file", "'files'"),
        ("/classify/batch", [_part("files")] * 4, "too_many_images", "3"),
        ("/classify/batch", [_part("files")] * 5, "too_many_images", "3"),
        ("/classify/batch", [_part("files")] * 40, "too_many_images", "3"),
    ],
)
def test_form_that_is_not_as_documented_is_refused(
    server: Server, path: str, parts: list[tuple[str, Any]], type_: str, word: str
) -> None:
    _assert_refused(server.post(path, files=parts), 422, type_, word)


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_form_without_fields_is_refused(server: Server, path: str) -> None:
    kind = {"content-type": "multipart/form-data; boundary=edge"}
    _assert_refused(server.post(path, content=b"--edge--\r\n", headers=kind), 422, "missing_file")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--edge\r\n"),
        ("multipart/form-data; boundary=edge", b"no boundary anywhere"),
        ("multipart/form-data; boundary=edge", SOUND),
        ("multipart/form-data; boundary=edge", b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--\r\n"),
        ("multipart/form-data; boundary=edge", b"--edge\r\nno header\r\n\r\nx\r\n--edge--\r\n"),
    ],
    ids=["no boundary named", "no boundary sent", "raw image", "part without a name", "part with a broken header"],
)
@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_broken_form_is_refused(server: Server, path: str, kind: str, body: bytes) -> None:
    _assert_refused(server.post(path, content=body, headers={"content-type": kind}), 400, "malformed_request")


@pytest.mark.parametrize("cut", [3, 60, 70, 100, -30, -12, -3])
@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_form_that_ends_too_early_is_refused(server: Server, path: str, cut: int) -> None:
    field = "file" if path == "/classify" else "files"
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'.encode()
    kind = {"content-type": "multipart/form-data; boundary=edge"}
    whole = head + SOUND + b"\r\n--edge--"
    assert server.post(path, content=whole, headers=kind).status_code == 200
    _assert_refused(server.post(path, content=whole[:cut], headers=kind), 400, "malformed_request")


def test_large_form_that_ends_too_early_leaves_no_file_open(runtime: OnnxRuntime) -> None:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=edge"}
    with serving(runtime, max_bytes=2_000_000) as server:  # above a megabyte it is a file on disk
        response = server.post("/classify", content=head + bytes(1_500_000), headers=kind)
        _assert_refused(response, 400, "malformed_request", "ends before")
    gc.collect()  # an open file would be a warning, and warnings are errors here


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", ""])
def test_batch_takes_nothing_but_a_form(server: Server, content_type: str) -> None:
    response = server.post("/classify/batch", content=SOUND, headers={"content-type": content_type})
    _assert_refused(response, 415, "unsupported_media_type", "multipart/form-data")


@pytest.mark.parametrize("path", ["/nope", "/classify/one", "/model/2", "/../etc/passwd"])
def test_unknown_path_is_refused(server: Server, path: str) -> None:
    _assert_refused(server.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_wrong_method_is_refused_and_told_the_right_one(server: Server, path: str) -> None:
    response = server.get(path)
    _assert_refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
