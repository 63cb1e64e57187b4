"""In which form errors are told: each protocol has its own, and a request's path says which it speaks."""

from __future__ import annotations

from service.errors import ErrorWriter, error_json
from service.protocol.json_form import write_error


def error_writer(path: str) -> ErrorWriter:
    """What writes the errors of requests to a path."""
    return write_error if path == "/v2" or path.startswith("/v2/") else error_json
