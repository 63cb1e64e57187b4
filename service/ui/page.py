"""The page's files over HTTP: right types, a strict policy, and no copy a browser uses without asking."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response

FILES = Path(__file__).parent / "static"

# Told here, not guessed: the guess comes from the machine's own table, and a browser obeys it because of nosniff.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
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


class PageFile:
    """A file, read once: to look it up on the disk for each request would take five times as long.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        self._etag = f'"{hashlib.sha256(self._data).hexdigest()[:32]}"'
        self._headers = _HEADERS | {"Content-Type": _TYPES[path.suffix], "ETag": self._etag}

    def response(self, request: Request) -> Response:
        """The file, or 304 where the browser's copy is still right (RFC 9110, section 13.1.2)."""
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self._etag in known or "*" in known:
            return Response(status_code=304, headers=_HEADERS | {"ETag": self._etag})
        return Response(self._data, headers=self._headers)


def mount(app: FastAPI) -> None:
    """Show the page at `/` and its files under `/ui/`: two routes in the metrics, however many files are asked for."""
    show_files(app, FILES, "/", "/ui/{path:path}")


def show_files(app: FastAPI, folder: Path, *routes: str) -> None:
    """Answer with the files of a folder, by their path in it; a route without one answers with index.html."""
    files = {path.relative_to(folder).as_posix(): PageFile(path) for path in folder.rglob("*") if path.suffix in _TYPES}

    async def file(request: Request) -> Response:
        found = files.get(request.path_params.get("path", "index.html"))
        if found is None:
            raise HTTPException(404)
        return found.response(request)

    for route in routes:
        app.add_api_route(route, file, methods=["GET"], include_in_schema=False)
