"""A form as nearly every client sends it, one file in one part, taken apart without a parser."""

from __future__ import annotations

import re

_CONTENT_TYPE = re.compile(r"multipart/form-data; ?boundary=([0-9A-Za-z_-]{1,70})")
_PART = re.compile(
    rb'Content-Disposition: form-data; name="file"; filename="[ !#-\[\]-~]+"(?:\r\nContent-Type: [!-~]+)?\r\n\r\n',
    re.IGNORECASE,
)


def simple_file(content_type: str, body: bytes) -> bytes | None:
    """The file in the form's only part, named `file`; None where the form has anything about it that is not plain."""
    named = _CONTENT_TYPE.fullmatch(content_type)
    if named is None:
        return None
    boundary = b"--" + named[1].encode("ascii")
    start = len(boundary) + 2
    part = _PART.match(body, start)
    if part is None or body[:start] != boundary + b"\r\n":
        return None
    end = body.find(b"\r\n" + boundary, part.end())
    if end < 0 or body[end + len(boundary) + 2 :] not in (b"--", b"--\r\n"):
        return None
    return body[part.end() : end]
