"""Calls, each told to the service as the HTTP request that it is.

A call of gRPC is a POST to `/package.Service/Method` with metadata for headers. So what stands around requests of HTTP
stands around calls as well: who may, whose turn it is, the record, its line in the log, its span and its counts.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import orjson
from starlette.types import ASGIApp
from starlette.types import Message as AsgiMessage

from service.classify.body_budget import Share
from service.grpc.methods import Call
from service.grpc.statuses import status_code

SERVICE = "inference.GRPCInferenceService"
_TOLD = (b"retry-after", b"x-request-id")

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not answered."""

    code: grpc.StatusCode
    message: str


@dataclass(frozen=True, slots=True)
class Told:
    """What is said to a call.

    Attributes:
        answer: or why there is none.
        metadata: that goes with it.
    """

    answer: Any | Refusal
    metadata: tuple[tuple[str, str], ...]


def path_of(method: str) -> str:
    """Where a method is called."""
    return f"/{SERVICE}/{method}"


async def answered(app: ASGIApp, method: str, message: bytes, held: Share, context: Context) -> Told:
    """Have a call answered.

    Args:
        app: answers it, see `Methods`, with what stands around requests.
        method: that is called.
        message: that was sent, as it came.
        held: what it takes of the memory for all messages.
        context: of the call.

    Raises:
        CancelledError: the client has left; what it left behind is tidied up meanwhile.
    """
    remaining_s = context.time_remaining()
    ends_at = math.inf if remaining_s is None else time.perf_counter() + remaining_s
    call = Call(method, message, ends_at, asyncio.Event(), held)
    del message  # the call lets go of it once it is read
    # A task of its own: it ends in its own time where gRPC ends this one.
    exchange = asyncio.get_running_loop().create_task(_exchanged(app, call, context))
    try:
        return await asyncio.shield(exchange)
    except asyncio.CancelledError:
        if time.perf_counter() < call.ends_at:  # else it ends by that itself
            call.departed.set()
        raise


async def _exchanged(app: ASGIApp, call: Call, context: Context) -> Told:
    status, headers, body = 500, [], b""

    async def send(message: AsgiMessage) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        else:
            body += message.get("body", b"")

    async def receive() -> AsgiMessage:
        await call.departed.wait()
        return {"type": "http.disconnect"}

    path = path_of(call.method)
    scope = {
        "type": "http",
        "http_version": "2",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "root_path": "",
        "query_string": b"",
        "headers": [*headers_of(context)],
        "client": _client(context.peer()),
        "server": None,
        "call": call,
    }
    await app(scope, receive, send)
    metadata = tuple((name.decode(), value.decode()) for name, value in headers if name.lower() in _TOLD)
    if call.answer is not None and status == 200:
        return Told(call.answer, metadata)
    return Told(Refusal(status_code(status), orjson.loads(body)["error"]["message"]), metadata)


def _client(peer: str) -> tuple[str, int] | None:
    """The address that gRPC writes as `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`; None for others."""
    kind, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    return (unquote(host).strip("[]"), int(port)) if kind in {"ipv4", "ipv6"} else None


def address_of(context: Context) -> str:
    """The address that a call came from; empty where it has none."""
    client = _client(context.peer())
    return client[0] if client else ""


def headers_of(context: Context) -> Iterable[tuple[bytes, bytes]]:
    """The metadata of a call, as headers."""
    for name, value in context.invocation_metadata() or ():
        yield name.encode("ascii"), value if isinstance(value, bytes) else value.encode("latin-1", "replace")
