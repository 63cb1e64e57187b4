"""Routes that are answered without FastAPI's routing and dependency injection.

For an image those take longer than all of this service's own code. The routes are declared to FastAPI all the same: its
documentation, and what other methods on their paths are answered, come from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.context import context
from service.errors import respond
from service.schemas import ClassifyParameters


class DirectRoute(APIRoute):
    """A POST route whose endpoint takes (request, context, query parameters) and returns a response."""


class DirectRouting:
    """Middleware that calls the endpoints of direct routes, and passes on every other request.

    Args:
        app: what comes next.
        routes: of which the direct ones are served.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = {route.path: route for route in routes if isinstance(route, DirectRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or pass it on."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request, context(request), parameters_in(scope["query_string"]))
        except Exception as error:  # as FastAPI does: every exception has its answer
            response = await respond(request, error)
        await response(scope, receive, send)


@lru_cache(maxsize=256)
def parameters_in(query: bytes) -> ClassifyParameters:
    """The parameters in a query string; most clients send the same one always.

    Raises:
        RequestValidationError: a parameter is unknown or has a value it may not have.
    """
    try:
        return ClassifyParameters.model_validate(dict(QueryParams(query)))
    except ValidationError as error:
        problems = [{**problem, "loc": ("query", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from error
