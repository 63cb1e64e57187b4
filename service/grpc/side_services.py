"""The services that clients find this one by: its health and its description, which need no key.

Their messages are small, and are refused unread where they are not; who asks may not keep others from it.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.grpc.calls import SERVICE, Context, address_of
from service.grpc.reading import Reading
from service.http.addresses import network_of

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_NAMES = (SERVICE, _HEALTH, reflection.SERVICE_NAME)
_Status = health_pb2.HealthCheckResponse
# Of a message: the names of services and symbols are far shorter.
_MOST_BYTES = 1024
# Messages that come at a time, and how long each may take: it is small, and comes with the call or not at all.
_MOST_READ, _TO_COME_S = 8, 1.0
# Who watches the health, of all and of one address; how long, after which clients ask again; and between two looks.
_MOST_WATCHERS, _MOST_WATCHERS_OF_ONE, _LONGEST_S, _PULSE_S = 128, 16, 600.0, 1.0

Write = Callable[[Context, Any], Awaitable[None]]
M = TypeVar("M", bound=Message)


class SideServices:
    """Answers for them.

    Args:
        is_ready: says whether images are taken.
        write: sends an answer, or ends the call where nobody takes it.
    """

    def __init__(self, is_ready: Callable[[], bool], write: Write) -> None:
        self._is_ready, self._write = is_ready, write
        self._reading = Reading(_MOST_READ, _TO_COME_S)
        self._watchers: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._reflection = reflection.aio.ReflectionServicer(_NAMES)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Of their methods, which all take bytes and are streams for gRPC, so that nothing is read unasked."""
        make: Any = grpc.stream_stream_rpc_method_handler
        healths = {
            "Check": make(self._check, None, _Status.SerializeToString),
            "Watch": make(self._watch, None, _Status.SerializeToString),
        }
        described = reflection_pb2.ServerReflectionResponse.SerializeToString
        reflections = {"ServerReflectionInfo": make(self._reflect, None, described)}
        return [
            grpc.method_handlers_generic_handler(_HEALTH, healths),
            grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, reflections),
        ]

    def stop(self) -> None:
        """Say from now on that no images are taken."""
        self._stopping.set()

    async def _check(self, _: object, context: Context) -> None:
        await self._write(context, _Status(status=await self._status(await self._service(context), context)))

    async def _watch(self, _: object, context: Context) -> None:
        service, told = await self._service(context), None
        async with self._watcher(context):
            ends_at = asyncio.get_running_loop().time() + _LONGEST_S
            while not self._stopping.is_set() and asyncio.get_running_loop().time() < ends_at:
                if (status := await self._status(service, context)) != told:
                    await self._write(context, _Status(status=status))
                    told = status
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _PULSE_S)
            if told != _Status.NOT_SERVING and self._stopping.is_set():
                await self._write(context, _Status(status=_Status.NOT_SERVING))

    async def _reflect(self, _: object, context: Context) -> None:
        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            while (message := await self._message(reflection_pb2.ServerReflectionRequest, context)) is not None:
                yield message

        answers: Any = self._reflection.ServerReflectionInfo(requests(), context)  # the type stubs want it awaited
        async for answer in answers:
            await self._write(context, answer)

    async def _service(self, context: Context) -> str:
        """Which service's health is asked for."""
        message = await self._message(health_pb2.HealthCheckRequest, context)
        return message.service if message else ""

    async def _status(self, service: str, context: Context) -> int:
        if service not in ("", *_NAMES):
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return _Status.SERVING if self._is_ready() and not self._stopping.is_set() else _Status.NOT_SERVING

    @asynccontextmanager
    async def _watcher(self, context: Context) -> AsyncIterator[None]:
        address = network_of(address_of(context))
        if self._watchers.total() >= _MOST_WATCHERS or self._watchers[address] >= _MOST_WATCHERS_OF_ONE:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "as many watch the health as may")
        self._watchers[address] += 1
        try:
            yield
        finally:
            self._watchers[address] -= 1
            self._watchers += Counter()  # forgets those that have none

    async def _message(self, kind: type[M], context: Context) -> M | None:
        """The next message of a call; None at its end."""
        try:
            message = await self._reading.message(context, address_of(context))
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not come in time")
        if message is None:
            return None
        if len(message) > _MOST_BYTES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a message may have {_MOST_BYTES} bytes")
        try:
            return kind.FromString(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be read")
