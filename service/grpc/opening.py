"""The gRPC server, where the settings ask for it: its packages are imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic_settings import SettingsError
from starlette.routing import Route
from starlette.types import ASGIApp

from service.access.ledger import Ledger
from service.errors import ErrorAnswers
from service.http.access import presented_key
from service.repository.repository import Repository
from service.settings import Settings

if TYPE_CHECKING:  # its packages need not be installed
    from service.grpc.server import GrpcServer

Around = Callable[[ASGIApp, list[Route], Callable[[str], bool]], ASGIApp]
"""Puts around an application what stands around all requests; told its routes, and which paths need no key."""


def open_grpc(settings: Settings, repository: Repository, around: Around, ledger: Ledger | None) -> GrpcServer | None:
    """The server that the settings ask for, or None.

    Args:
        settings: of the service.
        repository: of models.
        around: see there.
        ledger: of API keys, where they are asked for.

    Raises:
        SettingsError: its packages are not installed.
    """
    if not settings.grpc_port:
        return None
    try:
        from service.grpc.calls import path_of
        from service.grpc.methods import Methods
        from service.grpc.server import GrpcServer
    except ImportError as error:
        raise SettingsError(f"gRPC needs packages of its own, pip install '.[grpc]': {error}") from error
    methods = Methods(repository)
    routes = [Route(path_of(name), methods) for name in methods.names]
    open_paths = {path_of("ServerLive"), path_of("ServerReady")}

    def may_call(path: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        presented = presented_key(headers)
        return ledger is None or path in open_paths or (presented is not None and ledger.find(presented) is not None)

    app = around(ErrorAnswers(methods), routes, open_paths.__contains__)
    return GrpcServer(app, settings, lambda: repository.problem is None, may_call, repository.opening.memory)
