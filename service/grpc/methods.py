"""What the methods of `inference.GRPCInferenceService` do: a plain ASGI application, as the endpoints of HTTP are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from starlette.types import Receive, Scope, Send

from service.classify.body_budget import Share
from service.classify.budgets import Wish
from service.classify.deadlines import Deadline
from service.classify.request import ClassifyRequest
from service.grpc.messages import (
    answer_message,
    index_message,
    model_message,
    raw_bytes,
    read_request,
    require_parameters,
    server_message,
)
from service.grpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from service.grpc.wire import require_quickly_read
from service.http.access import require_admin
from service.http.transport import Head
from service.protocol.answer import answer_of
from service.protocol.bodies import RawBody
from service.protocol.metadata import index, model_metadata, server_metadata
from service.protocol.request import Inference, Limits
from service.protocol.tensors import invalid
from service.repository.repository import Repository

_Method = Callable[[Any, Scope], Awaitable[Message]]


@dataclass(slots=True)
class Call:
    """One call of a method.

    Attributes:
        method: its name.
        message: that was sent, as it came: who may send it is asked before it is read.
        ends_at: when the client waits no longer, in seconds of `time.perf_counter`.
        departed: set when the client has left.
        held: what the message takes of the memory for all of them, until it is read.
        answer: to be sent, once there is one.
    """

    method: str
    message: bytes
    ends_at: float
    departed: asyncio.Event
    held: Share
    answer: Any = None


class Methods:
    """Answers the call in `scope["call"]`; it raises what goes wrong.

    Args:
        repository: of models.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._models = repository.models
        self._methods: dict[str, tuple[type[Message], _Method]] = {
            "ServerLive": (ServerLiveRequest, self._server_live),
            "ServerReady": (ServerReadyRequest, self._server_ready),
            "ModelReady": (ModelReadyRequest, self._model_ready),
            "ServerMetadata": (ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (ModelMetadataRequest, self._model_metadata),
            "ModelInfer": (ModelInferRequest, self._model_infer),
            "ModelStreamInfer": (ModelInferRequest, self._model_infer),
            "RepositoryIndex": (RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": (RepositoryModelLoadRequest, self._repository_model_load),
            "RepositoryModelUnload": (RepositoryModelUnloadRequest, self._repository_model_unload),
        }

    @property
    def names(self) -> list[str]:
        """Of all methods."""
        return list(self._methods)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer one call."""
        call: Call = scope["call"]
        kind, method = self._methods[call.method]
        require_quickly_read(call.message)
        try:
            message = kind.FromString(call.message)
            call.message = b""  # it may be large
        except DecodeError as error:
            raise invalid("the message cannot be read") from error
        call.answer = await method(message, scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _server_live(self, *_: object) -> ServerLiveResponse:
        return ServerLiveResponse(live=True)

    async def _server_ready(self, *_: object) -> ServerReadyResponse:
        return ServerReadyResponse(ready=self._repository.problem is None)

    async def _model_ready(self, message: ModelReadyRequest, _: Scope) -> ModelReadyResponse:
        return ModelReadyResponse(ready=self._models.find(message.name, message.version or None).engine.ready)

    async def _server_metadata(self, *_: object) -> ServerMetadataResponse:
        return server_message(server_metadata())

    async def _model_metadata(self, message: ModelMetadataRequest, _: Scope) -> ModelMetadataResponse:
        return model_message(model_metadata(self._models, message.name, message.version or None))

    async def _repository_index(self, message: RepositoryIndexRequest, _: Scope) -> RepositoryIndexResponse:
        return index_message(index(self._models, only_ready=message.ready))

    async def _repository_model_load(
        self, message: RepositoryModelLoadRequest, scope: Scope
    ) -> RepositoryModelLoadResponse:
        require_admin(scope, None)
        require_parameters("the request", message.parameters, "")
        await self._repository.load(message.model_name)
        return RepositoryModelLoadResponse()

    async def _repository_model_unload(
        self, message: RepositoryModelUnloadRequest, scope: Scope
    ) -> RepositoryModelUnloadResponse:
        require_admin(scope, None)
        require_parameters("the request", message.parameters, "unload_dependents")
        await self._repository.unload(message.model_name)
        return RepositoryModelUnloadResponse()

    async def _model_infer(self, message: ModelInferRequest, scope: Scope) -> ModelInferResponse:
        served = self._models.find(message.model_name, message.model_version or None)
        settings, state, call = served.settings, scope["state"], scope["call"]
        request = ClassifyRequest(served, state["record"], state.get("account"))
        request.admit()
        limits = Limits(settings.max_images, settings.max_bytes)
        inference = Inference(read_request(message), served.manifest, limits)
        pieces, raw = raw_bytes(message), bool(message.raw_input_contents)
        message.Clear()  # it has the same bytes again
        call.held.give_back()
        head = Head(scope)
        within = head.deadline(state["record"].started_at, settings.deadline_ms)
        deadline = Deadline(min(within.at, call.ends_at))
        transport = MessageTransport(pieces, call.departed)
        classified = await request.classify(RawBody(inference), transport, deadline, Wish(head.budget))
        answer = answer_of(inference, served.manifest, classified)
        return answer_message(answer, raw=raw)


class MessageTransport:
    """The raw bytes of a message, and word of its client.

    Args:
        raw: the bytes of each input.
        departed: set when the client has left.
    """

    def __init__(self, raw: list[bytes], departed: asyncio.Event) -> None:
        self.declared_bytes = sum(map(len, raw))
        self._raw = raw[::-1]
        self._departed = departed

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that have not been taken."""
        return bool(self._raw)

    async def receive(self) -> bytes:
        """The next bytes."""
        return self._raw.pop()

    async def departure(self) -> None:
        """Return when the client has left."""
        await self._departed.wait()
