"""The id of a request: the one its client gave it, where that may be repeated, or a new one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

HEADER = b"x-request-id"

# What the ids of common proxies and tracers are made of. Nothing in it can end a line, a header or a JSON string.
_SAFE = re.compile(rb"[0-9A-Za-z._~:;/+=@-]{1,128}")


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id for a request with these headers, whose names are in lower case as ASGI has them.

    A client's own `X-Request-ID` is taken if it has at most 128 letters, digits and `._~:;/+=@-`; of several, the first
    counts. Otherwise the id is 32 random hexadecimal digits.
    """
    for name, value in headers:
        if name == HEADER:
            if _SAFE.fullmatch(value):
                return value.decode("ascii")
            break
    return os.urandom(16).hex()
