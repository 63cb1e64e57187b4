"""The gRPC server, on the event loop of everything else: it begins and ends with the application."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from pydantic_settings import SettingsError
from starlette.types import ASGIApp

from service.classify.body_budget import BodyBudget, Share
from service.engine.errors import Overloaded
from service.grpc import open_inference_pb2 as messages
from service.grpc.calls import SERVICE, Context, Refusal, Told, address_of, answered, headers_of, path_of
from service.grpc.reading import Reading
from service.grpc.side_services import SideServices
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
# How long an answer may wait to be taken, in seconds; and between two looks at what is still to be answered.
_LONGEST_WRITE_S, _STEP_S = 10.0, 0.02
# They ask for nothing, so that nothing is read of them.
_ASK_NOTHING = {"ServerLive", "ServerReady"}

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


class GrpcServer:
    """Serves the Open Inference Protocol.

    Args:
        app: answers calls, see `calls.answered`.
        settings: of the service.
        is_ready: says whether images are taken.
        may_call: says whether who calls a method may, by its metadata as headers; the application says why not.
        memory: of all messages and request bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        is_ready: Callable[[], bool],
        may_call: Callable[[str, Sequence[tuple[bytes, bytes]]], bool],
        memory: BodyBudget,
    ) -> None:
        self._app = app
        self._settings = settings
        self._stopping = asyncio.Event()
        # Answers that are being worked on, and being sent; and streams.
        self._working = self._open = self._streams = 0
        self._side = SideServices(is_ready, self._write)
        self._memory = memory
        self._reading = Reading(max(2, settings.max_pending_bytes // _most_message_bytes(settings)))
        self._may = may_call

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serve meanwhile, on the port that is told; in the end calls have the settings' time to be answered.

        Raises:
            SettingsError: the port is taken.
        """
        settings = self._settings
        # It logs what clients sent, keys too, and as much as they like; what goes wrong here is logged by who notices.
        logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)
        server = grpc.aio.server(options=_options(settings))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        server.add_generic_rpc_handlers(tuple(self._side.handlers()))
        for host in settings.host:
            address = f"[{host}]" if ":" in host else host
            try:
                port = server.add_insecure_port(f"{address}:{settings.grpc_port}")
            except RuntimeError as error:
                raise SettingsError(f"cannot listen on port {settings.grpc_port} of {host} for gRPC") from error
        await server.start()
        _log.info("gRPC on port %d of %s", port, ", ".join(settings.host))
        try:
            yield port
        finally:
            await self._drain(server)

    async def _drain(self, server: grpc.aio.Server) -> None:
        """Take no calls any more, and let those that there are be answered; who only watches the health is cut off."""
        self._side.stop()
        self._stopping.set()
        draining = asyncio.get_running_loop().create_task(server.stop(self._settings.drain_seconds))
        while (self._working or self._open) and not draining.done():
            await asyncio.sleep(_STEP_S)
        await server.stop(None)
        await draining

    def _may_call(self, method: str, context: Context) -> bool:
        return self._may(path_of(method), [*headers_of(context)])

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Of every method as gRPC has streams: so nothing of a message is taken before it is known who may send it."""
        handlers = {}
        for method in messages.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods:
            told = getattr(messages, method.output_type.name)
            make: Any = grpc.stream_stream_rpc_method_handler
            behaviour = self._stream if method.client_streaming else self._unary(method.name)
            handlers[method.name] = make(behaviour, None, told.SerializeToString)  # requests come as bytes
        return handlers

    def _unary(self, method: str) -> Callable[[object, Context], Awaitable[None]]:
        async def behaviour(_: object, context: Context) -> None:
            with self._memory.share() as held:
                told = await self._answered(method, await self._message(method, context, held), held, context)
            if isinstance(told.answer, Refusal):
                await context.abort(told.answer.code, told.answer.message, told.metadata)
            context.set_trailing_metadata(told.metadata)
            await self._write(context, told.answer)

        return behaviour

    async def _message(self, method: str, context: Context, held: Share) -> bytes:
        """What was sent; nothing where nobody needs to know, or who sent it may not."""
        if method in _ASK_NOTHING or not self._may_call(method, context):
            return b""
        try:
            message = await self._reading.message(context, address_of(context)) or b""
            held.take(len(message))
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not come in time")
        except Overloaded as error:
            await _refuse_bytes(error, context)
        if self._working >= self._settings.queue_size:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "there are as many calls as are taken")
        return message

    async def _answered(self, method: str, message: bytes, held: Share, context: Context) -> Told:
        self._working += method not in _ASK_NOTHING
        answering = answered(self._app, method, message, held, context)
        del message  # which may be large, and is read long before it is answered
        try:
            return await answering
        finally:
            self._working -= method not in _ASK_NOTHING

    async def _write(self, context: Context, answer: Any) -> None:
        """Send an answer; who does not take it in time is told so, if he ever reads it."""
        self._open += 1
        try:
            async with asyncio.timeout(_LONGEST_WRITE_S):
                await context.write(answer)
                return
        except TimeoutError:
            pass
        finally:
            self._open -= 1
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the answer was not taken in time")

    async def _stream(self, _: object, context: Context) -> None:
        if self._streams == _MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {_MOST_STREAMS} streams already")
        self._streams += 1
        may = self._may_call("ModelStreamInfer", context)
        try:
            while (message := await self._next(context) if may else b"") is not None:
                with self._memory.share() as held:
                    held.take(len(message))
                    answering = self._answered("ModelStreamInfer", message, held, context)
                    message = b""
                    told = await answering
                if not isinstance(told.answer, Refusal):
                    await self._write(context, messages.ModelStreamInferResponse(infer_response=told.answer))
                elif may:
                    await self._write(context, messages.ModelStreamInferResponse(error_message=told.answer.message))
                else:
                    await context.abort(told.answer.code, told.answer.message, told.metadata)
        except Overloaded as error:
            await _refuse_bytes(error, context)
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


async def _refuse_bytes(error: Overloaded, context: Context) -> None:
    later = (("retry-after", str(math.ceil(error.retry_after_s))),)
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "as many bytes of messages are held as may be", later)


async def _read(context: Context) -> bytes | None:
    message = await context.read()
    return None if message is grpc.aio.EOF else message


def _most_message_bytes(settings: Settings) -> int:
    return min(max(settings.max_images * settings.max_bytes, _LEAST_MESSAGE_BYTES), _MOST_MESSAGE_BYTES)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int((settings.frontends or 1) > 1)),
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
        # Who compresses makes others hold a thousand times what he sends.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_S * 1000),
    ]
