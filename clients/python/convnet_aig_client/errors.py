"""What can go wrong with a request: one exception, with subclasses where a caller can act differently."""

from __future__ import annotations


class ServiceError(Exception):
    """The service did not answer as it was asked to.

    Attributes:
        status: HTTP status; None if no answer came.
        type: for programs. The types of the service are in its documentation. The client adds `not_reached`,
            `connection_lost`, `deadline_exceeded`, `invalid_answer`, and `http_` with a status for an error that
            something else than the service has answered, a proxy for example.
        message: for people.
        request_id: what the service's log knows the request by; None if no answer came.
    """

    def __init__(self, status: int | None, type: str, message: str, request_id: str | None = None) -> None:  # noqa: A002
        super().__init__(status, type, message, request_id)
        self.status = status
        self.type = type
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        known_by = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.type}{known_by})"


class BusyError(ServiceError):
    """The service, or the API key, has no capacity now (429, 503). Send the request again later.

    Attributes:
        retry_after_s: when there may be some, in seconds, if the service said so.
    """

    retry_after_s: float | None = None


class DeadlineError(ServiceError):
    """There was no answer in time. Allow more time, or ask for less."""


class NotReachedError(ServiceError):
    """No connection could be made, or it broke. Look at the address and the network."""
