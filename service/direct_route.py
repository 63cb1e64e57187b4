"""A route without FastAPI's dependency injection, which takes longer for an image than all of this service's own code.

The signature of the endpoint still says to the API's documentation what it takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from service.context import Context, context
from service.schemas import ClassifyParameters

Endpoint = Callable[[Request, Context, ClassifyParameters], Awaitable[Response]]


class DirectRoute(APIRoute):
    """Calls an endpoint (request, context, query parameters) -> response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that FastAPI calls with a request."""
        endpoint: Endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            return await endpoint(request, context(request), _parameters(request.url.query))

        return handle


@lru_cache(maxsize=256)
def _parameters(query: str) -> ClassifyParameters:
    """The parameters in a query string; most clients send the same one always.

    Raises:
        RequestValidationError: a parameter is unknown or has a value it may not have.
    """
    try:
        return ClassifyParameters.model_validate(dict(QueryParams(query)))
    except ValidationError as error:
        problems = [{**problem, "loc": ("query", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from error
