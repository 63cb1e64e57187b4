"""The service that this process is only a part of, where several front ends serve one port."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry

Change = Literal["load", "unload"]


class Part(Protocol):
    """What the service may ask of this process."""

    @property
    def own_problem(self) -> str | None:
        """Why no request should be sent here now; None where there is no reason."""

    @property
    def leaving(self) -> bool:
        """Whether connections are taken no more."""

    @property
    def served(self) -> list[tuple[str, str]] | None:
        """Name and version of the models that are served; None where there is no folder of them."""

    @property
    def registry(self) -> CollectorRegistry:
        """What is counted here."""

    async def load_here(self, name: str, version: str | None = None) -> None:
        """Serve a version.

        Raises:
            ApiError: it cannot be.
        """

    async def unload_here(self, name: str, version: str | None = None) -> None:
        """Serve it no more.

        Raises:
            ApiError: it is not, or has to be.
        """


class Whole(Protocol):
    """What a front end knows of all of them.

    Attributes:
        number: of this one.
        count: of all.
        name: of this one, among those of processes.
        problem: why the service is not ready, whatever this process is; None where it is.
        models: versions to serve at first, of the default model before others; None for all there are.
    """

    number: int
    count: int
    name: str
    problem: str | None
    models: Sequence[tuple[str, str]] | None

    def running(self, part: Part) -> AbstractAsyncContextManager[object]:
        """Have this process be a part meanwhile."""

    def tell_listening(self) -> None:
        """Say that connections are taken."""

    async def metrics(self) -> bytes:
        """The metrics of all, in Prometheus's text format.

        Raises:
            ApiError: they cannot be had.
        """

    async def change(self, change: Change, name: str, version: str | None) -> None:
        """Load or unload a model in all front ends.

        Raises:
            ApiError: it cannot be.
        """
