"""The page's files over HTTP: right types, a strict policy, and no copy a browser uses without asking."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FILES = Path(__file__).parent / "static"

# Told here, not guessed: the guess comes from the machine's own table, and a browser obeys it because of nosniff.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
_HEADERS = {
    # The names carry no version, so a browser asks each time; its ETag gets it a 304.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageFiles(StaticFiles):
    """The files of a folder, with the headers every one of them has."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, or 304 where the browser's copy is still right."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        if response.status_code != 304:
            response.headers["Content-Type"] = _TYPES[Path(full_path).suffix]
        return response


def mount(app: FastAPI) -> None:
    """Show the page at `/` and its files under `/ui/`: two routes in the metrics, however many files are asked for."""
    files = PageFiles(directory=FILES)

    async def file(request: Request) -> Response:
        return await files.get_response(request.path_params.get("path", "index.html"), request.scope)

    for route in ("/", "/ui/{path:path}"):
        app.add_api_route(route, file, methods=["GET"], include_in_schema=False)
