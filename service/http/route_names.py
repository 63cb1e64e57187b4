"""What a route is called in metrics, logs and traces: by the template of its path."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from service.http.forwarded_prefix import path_below
from service.http.image_routes import image_route


class RouteNames:
    """Names the routes of requests from their paths alone, whoever answered them and however far they came.

    Args:
        routes: besides those with images; those without a path of their own, which only lead to others, are left out.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [(name, route) for route in routes if (name := getattr(route, "path", None))]

    def name(self, scope: Scope) -> str | None:
        """The name of a request's route; None where there is nothing at its path."""
        if of_images := image_route(path_below(scope)):
            return of_images.template
        return next((name for name, route in self._routes if route.matches(scope)[0] is not Match.NONE), None)
