"""Forms that are taken apart without a parser, held against the parser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.simple_form import simple_file
from service.uploads import parse_form

PIECES = st.sampled_from(
    [
        b"--edge",
        b"\r\n",
        b"\n",
        b"--",
        b"edge",
        b'Content-Disposition: form-data; name="file"; filename="a.png"',
        b'content-disposition: Form-Data; name="file"; filename="a=;\'.png"',
        b'Content-Disposition: form-data; name="file"; filename="a\xff.png"',
        b"Content-Type: image/png",
        b"Content-Type: text/plain;charset=x",
        b"\x89PNG",
    ]
)
HEAD = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"'
CONTENT_TYPES = st.sampled_from(["multipart/form-data; boundary=edge", "multipart/form-data;boundary=edge"])


@given(
    kind=CONTENT_TYPES,
    head=st.just(HEAD + b"\r\n\r\n") | st.just(HEAD + b"\r\nContent-Type: a/b\r\n\r\n") | st.just(b"--edge\r\n"),
    pieces=st.lists(PIECES | st.binary(max_size=4), max_size=8),
    end=st.sampled_from([b"\r\n--edge--\r\n", b"\r\n--edge--", b"--edge--\r\n", b""]),
)
def test_file_is_the_one_the_parser_finds(kind: str, head: bytes, pieces: list[bytes], end: bytes) -> None:
    body = head + b"".join(pieces) + end
    file = simple_file(kind, body)
    if file is None:
        return

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    (upload,) = asyncio.run(parse_form(Headers({"content-type": kind}), whole(), "file", 1))
    assert upload.data == file
