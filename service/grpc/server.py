"""The gRPC server, on the event loop of everything else: it begins and ends with the application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic_settings import SettingsError
from starlette.types import ASGIApp

from service.grpc import open_inference_pb2 as messages
from service.grpc.calls import SERVICE, Context, Refusal, address_of, answered, headers_of, path_of
from service.grpc.reading import Reading
from service.settings import MOST_GRPC_CONNECTIONS, Settings

# Of one message, which is held as a whole before anybody can look at it.
_MOST_MESSAGE_BYTES, _LEAST_MESSAGE_BYTES = 33_554_432, 4_194_304
# Of which each may hold such a message, besides those that are just read.
_MOST_STREAMS = 32
# Connections that say nothing, or whose calls only watch, cost little; but each is a file.
_MOST_CALLS_OF_A_CONNECTION, _HANDSHAKE_S = 100, 10.0
# What a client may send of a message that is not read yet.
_AHEAD_BYTES = 65_536
# How long a stream may bring nothing, and a connection have no calls, in seconds.
_IDLE_S = 60.0
_KEEPALIVE_S, _KEEPALIVE_TIMEOUT_S = 60, 20
_PULSE_S, _STEP_S = 1.0, 0.02  # between two looks at the engine, and at what is still to be answered

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")

_HEALTH = health_pb2.HealthCheckResponse


class GrpcServer:
    """Serves the Open Inference Protocol.

    Args:
        app: answers calls, see `calls.answered`.
        settings: of the service.
        is_ready: says whether images are taken.
        may_call: says whether who calls a method may, by its metadata as headers; the application says why not.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        is_ready: Callable[[], bool],
        may_call: Callable[[str, Sequence[tuple[bytes, bytes]]], bool],
    ) -> None:
        self._app = app
        self._settings = settings
        self._is_ready = is_ready
        self._stopping = asyncio.Event()
        self._open = self._streams = 0  # calls that are not answered yet, and those of them that are streams
        self._reading = Reading(max(2, settings.max_pending_bytes // _most_message_bytes(settings)))
        self._may = may_call

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serve meanwhile, on the port that is told; in the end calls have the settings' time to be answered.

        Raises:
            SettingsError: the port is taken.
        """
        settings = self._settings
        server = grpc.aio.server(options=_options(settings))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        for host in settings.host:
            address = f"[{host}]" if ":" in host else host
            try:
                port = server.add_insecure_port(f"{address}:{settings.grpc_port}")
            except RuntimeError as error:
                raise SettingsError(f"cannot listen on port {settings.grpc_port} of {host} for gRPC") from error
        await server.start()
        _log.info("gRPC on port %d of %s", port, ", ".join(settings.host))
        watch = asyncio.get_running_loop().create_task(self._watch(servicer))
        try:
            yield port
        finally:
            watch.cancel()
            await servicer.enter_graceful_shutdown()
            await self._drain(server)

    async def _drain(self, server: grpc.aio.Server) -> None:
        """Take no calls any more, and let those that there are be answered; who only watches the health is cut off."""
        self._stopping.set()
        draining = asyncio.get_running_loop().create_task(server.stop(self._settings.drain_seconds))
        while self._open and not draining.done():
            await asyncio.sleep(_STEP_S)
        await server.stop(None)
        await draining

    def _may_call(self, method: str, context: Context) -> bool:
        return self._may(path_of(method), [*headers_of(context)])

    def _count(self, context: Context) -> None:
        """Count a call as open until its answer is sent."""

        def close(_: Context) -> None:
            self._open -= 1

        closed: Any = close  # the type stubs want a class of their own
        self._open += 1
        context.add_done_callback(closed)

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Of every method as gRPC has streams: so nothing of a message is taken before it is known who may send it."""
        handlers = {}
        for method in messages.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods:
            told = getattr(messages, method.output_type.name)
            make: Any = grpc.stream_stream_rpc_method_handler
            behaviour = self._stream if method.client_streaming else self._unary(method.name)
            handlers[method.name] = make(behaviour, None, told.SerializeToString)  # requests come as bytes
        return handlers

    def _unary(self, method: str) -> Callable[[object, Context], AsyncIterator[Any]]:
        async def behaviour(_: object, context: Context) -> AsyncIterator[Any]:
            message: bytes | None = b""
            if self._may_call(method, context):
                try:
                    message = await self._reading.message(context, address_of(context))
                except TimeoutError:
                    await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not come in time")
                if self._open - self._streams >= self._settings.queue_size:
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "there are as many calls as are taken")
            self._count(context)
            told = await answered(self._app, method, message or b"", context)
            if isinstance(told.answer, Refusal):
                await context.abort(told.answer.code, told.answer.message, told.metadata)
            context.set_trailing_metadata(told.metadata)
            yield told.answer

        return behaviour

    async def _stream(self, _: object, context: Context) -> AsyncIterator[messages.ModelStreamInferResponse]:
        if self._streams == _MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {_MOST_STREAMS} streams already")
        self._count(context)
        self._streams += 1
        may = self._may_call("ModelStreamInfer", context)
        try:
            while (message := await self._next(context) if may else b"") is not None:
                told = await answered(self._app, "ModelStreamInfer", message, context)
                if not isinstance(told.answer, Refusal):
                    yield messages.ModelStreamInferResponse(infer_response=told.answer)
                elif may:
                    yield messages.ModelStreamInferResponse(error_message=told.answer.message)
                else:
                    await context.abort(told.answer.code, told.answer.message, told.metadata)
        finally:
            self._streams -= 1

    async def _next(self, context: Context) -> bytes | None:
        """The next message of a stream; None at its end.

        It takes no turn of `Reading`: a stream that waits for its user would keep one from everybody else.
        """
        loop = asyncio.get_running_loop()
        read, stopping = loop.create_task(_read(context)), loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait({read, stopping}, timeout=_IDLE_S, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                code, why = grpc.StatusCode.DEADLINE_EXCEEDED, f"the stream brought nothing for {_IDLE_S:g} s"
                if self._stopping.is_set():
                    code, why = grpc.StatusCode.UNAVAILABLE, "the server is stopping"
                await context.abort(code, why)
            return read.result()
        finally:
            read.cancel()
            stopping.cancel()

    async def _watch(self, servicer: health.aio.HealthServicer) -> None:
        """Have the health service tell what the engine is like."""
        while True:
            status = _HEALTH.SERVING if self._is_ready() else _HEALTH.NOT_SERVING
            for name in ("", SERVICE):
                await servicer.set(name, status)
            await asyncio.sleep(_PULSE_S)


async def _read(context: Context) -> bytes | None:
    message = await context.read()
    return None if message is grpc.aio.EOF else message


def _most_message_bytes(settings: Settings) -> int:
    return min(max(settings.max_images * settings.max_bytes, _LEAST_MESSAGE_BYTES), _MOST_MESSAGE_BYTES)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", MOST_GRPC_CONNECTIONS),
        ("grpc.max_concurrent_streams", _MOST_CALLS_OF_A_CONNECTION),
        ("grpc.http2.bdp_probe", 0),  # else a fast connection brings whole messages that nobody reads yet
        ("grpc.http2.lookahead_bytes", _AHEAD_BYTES),
        ("grpc.server_handshake_timeout_ms", round(_HANDSHAKE_S * 1000)),
        ("grpc.max_receive_message_length", _most_message_bytes(settings)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16_384),
        ("grpc.max_connection_idle_ms", round(_IDLE_S * 1000)),
        ("grpc.keepalive_time_ms", _KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_S * 1000),
    ]
