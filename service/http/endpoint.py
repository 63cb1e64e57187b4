"""`POST /classify` and `POST /classify/batch`, of the default model or another: requests with images, by HTTP.

They are a plain ASGI application. What FastAPI does for a route, parameters by introspection and a validated answer,
would take longer than all of this service's own code.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.classify.budgets import Plan, Wish
from service.classify.context import Context
from service.classify.request import Classified, ClassifyRequest
from service.classify.schemas import BatchClassification, BatchItem, ClassifyParameters
from service.classify.submission import NOT_TAKEN
from service.classify.uploads import Body, one_image, several_images
from service.engine.job import Answer
from service.errors import ApiError, answer, classify_error
from service.http.forwarded_prefix import path_below
from service.http.image_routes import image_route
from service.http.inference import InferenceEndpoint
from service.http.transport import Head, HttpTransport
from service.repository.models import Models

_LONGEST_QUERY = 500  # in bytes
# Far above what clients send; each is looked at again and again on a request's way.
_MOST_HEADERS = 128


class Routing:
    """Leaves requests with images to their endpoints, and all others to an application.

    Args:
        models: that are served.
        others: answers them.
    """

    def __init__(self, models: Models, others: ASGIApp) -> None:
        self._models = models
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._others(scope, receive, send)
        else:
            await answer(self._begin, scope, receive, send)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(scope["headers"]) > _MOST_HEADERS:
            raise ApiError(431, "head_too_large", f"a request may have at most {_MOST_HEADERS} headers")
        route = image_route(path_below(scope))
        if route is None:
            await self._others(scope, receive, send)
            return
        served = self._models.default if route.name is None else self._models.find(route.name, route.version)
        endpoint: ASGIApp
        if route.takes == "tensors":
            endpoint = InferenceEndpoint(served)
        else:
            endpoint = ClassifyEndpoint(served, several=route.takes == "images")
        await endpoint(scope, receive, send)


class ClassifyEndpoint:
    """Answers requests with images; it raises what goes wrong.

    Args:
        served: the model that answers.
        several: whether a request has several images.
    """

    def __init__(self, served: Context, *, several: bool) -> None:
        self._served = served
        self._several = several

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        state = scope["state"]
        record = state["record"]
        request = ClassifyRequest(self._served, record, state.get("account"))
        request.admit()
        head = Head(scope)
        parameters = parameters_in(scope["query_string"])
        deadline = head.deadline(record.started_at, self._served.settings.deadline_ms)
        wish, transport = _wish(parameters, head), HttpTransport(head.declared_bytes, receive)
        classified = await request.classify(self._body(head), transport, deadline, wish)
        told = self._answer(classified, parameters, record.elapsed_s)
        headers_told = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told))]
        await send({"type": "http.response.start", "status": 200, "headers": headers_told})
        await send({"type": "http.response.body", "body": told})

    def _body(self, head: Head) -> Body:
        settings = self._served.settings
        head.require_no_encoding()
        content_type = head.text("Content-Type") or ""
        if self._several:
            return several_images(content_type, settings.max_bytes, settings.max_images)
        return one_image(content_type, settings.max_bytes)

    def _answer(self, classified: list[Classified], parameters: ClassifyParameters, total_s: float) -> bytes:
        """The JSON. What went wrong with the only image, or kept all from being taken, is the request's own error."""
        _, plan, first = classified[0]
        if not self._several:
            if isinstance(first, Exception):
                raise first
            return self._written(first, plan, parameters, total_s)
        if isinstance(first, NOT_TAKEN) and all(isinstance(each.outcome, NOT_TAKEN) for each in classified):
            raise first
        results = [self._item(each, parameters, total_s) for each in classified]
        return orjson.dumps(BatchClassification(results=results))

    def _item(self, classified: Classified, parameters: ClassifyParameters, total_s: float) -> BatchItem:
        upload, plan, outcome = classified
        if isinstance(outcome, Exception):
            return BatchItem(filename=upload.filename, error=classify_error(outcome)[1])
        answer: Any = orjson.Fragment(self._written(outcome, plan, parameters, total_s))
        return BatchItem(filename=upload.filename, answer=answer)

    def _written(self, answer: Answer, plan: Plan, parameters: ClassifyParameters, total_s: float) -> bytes:
        return self._served.writer.write(answer, plan, parameters.top_k, parameters.graph, total_s)


@lru_cache(maxsize=256)
def parameters_in(query: bytes) -> ClassifyParameters:
    """The parameters in a query string; most clients send the same one always.

    Raises:
        RequestValidationError: a parameter is unknown or has a value it may not have.
        ApiError: the query is far longer than all parameters there are.
    """
    if len(query) > _LONGEST_QUERY:
        raise ApiError(422, "invalid_parameter", f"the query has more than {_LONGEST_QUERY} bytes")
    try:
        return ClassifyParameters.model_validate(dict(QueryParams(query)))
    except ValidationError as error:
        problems = [{**problem, "loc": ("query", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from error


def _wish(parameters: ClassifyParameters, head: Head) -> Wish:
    """What the client asked for; its query goes before its header, which a proxy may have added."""
    budget = head.budget if parameters.budget is None else parameters.budget
    return Wish(budget, parameters.max_latency_ms, may_degrade=parameters.degrade == "allow")
