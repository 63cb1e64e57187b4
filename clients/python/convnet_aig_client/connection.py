"""Where the service is, and who asks it."""

from __future__ import annotations

import ssl
from typing import TypedDict

import httpx


class Connection(TypedDict):
    """What both of httpx's clients are made with."""

    base_url: httpx.URL
    headers: dict[str, str]
    limits: httpx.Limits
    verify: ssl.SSLContext | bool


def connection(url: str, api_key: str | None, verify: ssl.SSLContext | bool) -> Connection:
    """How to connect. There are as many connections as requests at a time.

    Raises:
        ValueError: the URL is none of HTTP, or the key has characters that no key has.
    """
    try:
        base_url = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the URL of the service cannot be read: {error}") from error
    if base_url.scheme not in {"http", "https"} or not base_url.host:
        raise ValueError("the URL of the service must begin with http:// or https:// and a host")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.split() == [api_key]):
        raise ValueError("an API key has only visible ASCII characters")  # and no error shows it
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return Connection(base_url=base_url, headers=headers, limits=limits, verify=verify)
