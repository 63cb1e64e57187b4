"""What the service's errors are called in gRPC: by their HTTP statuses, which they all have.

https://grpc.github.io/grpc/core/md_doc_statuscodes.html
"""

from __future__ import annotations

from grpc import StatusCode

_CODES = {
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def status_code(status: int) -> StatusCode:
    """The code for the HTTP status of an error."""
    return _CODES.get(status, StatusCode.INVALID_ARGUMENT if status < 500 else StatusCode.INTERNAL)
