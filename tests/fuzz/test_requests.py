"""Bodies that are nearly forms, sent in pieces, under content types that are nearly right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.runtimes.selection import open_runtime
from tests.image_files import encoded, photograph
from tests.service.server import Server, serving

IMAGES = [encoded(photograph(9, 7), format_) for format_ in ("JPEG", "PNG", "GIF")]
STATUSES = {200, 400, 413, 415, 422}
BOUNDARIES = st.sampled_from([b"edge", b"e", b"-" * 70, b"a b", b"\xff\xfe", b"edge--", b"", b"=?()"])
HEADERS = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="file"; filename="a.png"',
        b'Content-Disposition: form-data; name="files"; filename="a.png"',
        b'Content-Disposition: form-data; name="file"',
        b"Content-Disposition: form-data; name=file; filename*=utf-8''%ff%00",
        b'Content-Disposition: form-data; name="\xff\xfe\x00"; filename="../../etc/passwd"',
        b"Content-Disposition: attachment",
        b"Content-Disposition:",
        b": nothing",
        b"Content-Type: image/png",
        b"Content-Transfer-Encoding: base64",
        b"X-Long: " + b"x" * 5000,
    ]
)
CONTENT_TYPES = st.sampled_from(
    [
        b"multipart/form-data; boundary=%s",
        b'multipart/form-data; boundary="%s"',
        b"multipart/form-data; charset=utf-7; boundary=%s",
        b"Multipart/Form-Data;boundary=%s",
        b"multipart/form-data; boundary=%s; boundary=other",
        b"multipart/mixed; boundary=%s",
        b"image/png; boundary=%s",
        b"%s",
    ]
)


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[Server]:
    with serving(open_runtime(artifact, "onnx", "cpu"), max_bytes=8000, max_images=3) as started:
        yield started


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A content type and a body, each of which may be as it should be."""
    boundary = draw(BOUNDARIES)
    parts = b""
    for _ in range(draw(st.integers(0, 4))):
        headers = b"\r\n".join(draw(st.lists(HEADERS, max_size=10)))
        content = draw(st.sampled_from(IMAGES) | st.binary(max_size=100))
        parts += b"--" + boundary + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"
    body = bytearray(parts + b"--" + boundary + draw(st.sampled_from([b"--\r\n", b"--", b"-", b"", b"--\r\nepilogue"])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return draw(CONTENT_TYPES).replace(b"%s", boundary), bytes(body)


def _send(server: Server, path: str, kind: bytes, chunks: Sequence[bytes]) -> None:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    response = server.post(path, content=body(), headers={b"content-type": kind})
    assert response.status_code in STATUSES, response.text
    if response.status_code != 200:
        assert response.json()["error"]["type"] not in ("internal_error", "inference_failed")


@given(path=st.sampled_from(["/classify", "/classify/batch"]), form=forms(), cuts=st.lists(st.floats(0, 1), max_size=5))
def test_form_of_any_kind_is_answered_or_refused(
    server: Server, path: str, form: tuple[bytes, bytes], cuts: list[float]
) -> None:
    kind, body = form
    places = sorted(int(cut * len(body)) for cut in cuts)
    chunks = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    _send(server, path, kind, chunks)


@given(
    path=st.sampled_from(["/classify", "/classify/batch"]),
    kind=st.binary(max_size=60).filter(lambda kind: not set(kind) & {0, 10, 13}),
    body=st.binary(max_size=200),
)
def test_content_type_of_any_kind_is_answered_or_refused(server: Server, path: str, kind: bytes, body: bytes) -> None:
    _send(server, path, kind, [body])
