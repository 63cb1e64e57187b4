"""One server process: what it needs is opened, its ports are taken, then it serves until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError, Manifest
from service.access.key_file import KeyFile
from service.access.keys import KeySource
from service.engine.errors import EngineError
from service.http.listening import taken_path, taken_port
from service.images.workers import begin_pool
from service.observability.logs import logged
from service.observability.opening import open_tracing
from service.repository.folder import default_model
from service.repository.whole import Whole
from service.settings import Settings

if TYPE_CHECKING:  # its packages need not be installed
    from service.observability.tracing import Tracing

_log = logging.getLogger("service")


def serve(settings: Settings, whole: Whole | None = None) -> int:
    """Serve, and log what keeps the server from starting like everything else; return the exit status.

    Args:
        settings: of this process.
        whole: the service, where this is one of several front ends that are it.

    Raises:
        KeyFileError: the file of keys cannot be used.
    """
    with logged(settings.log_format, settings.log_level, frontend=whole.number if whole else None):
        try:
            return _serve(settings, whole)
        except (ArtifactError, EngineError, SettingsError) as error:
            _log.error("%s", " ".join(str(error).split()))
            return 1


def end_at_once_on_signals() -> None:
    """End the program at once on SIGTERM and SIGINT, until a server has started, which has its own way to heed them.

    It has accepted nothing that is left to finish, and its workers end when it is gone. An exception would be lost
    where Python is called from C.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, _: os._exit(128 + number))  # as shells have it


def _serve(settings: Settings, whole: Whole | None) -> int:
    part = (whole.number, whole.count) if whole else (0, 1)
    keys = KeyFile(settings.api_keys, part) if settings.api_keys else None
    folder, manifest = default_model(settings, whole.models if whole else None)
    tracing = open_tracing(settings)
    if whole is None:  # else the process above has looked
        require_free_ports(settings)
    ports = taken_port(settings.host, settings.port, shared=whole is not None)
    with ports as listeners, taken_path(settings.admin_socket) as paths:
        return _serve_on([*listeners, *paths], settings, folder, manifest, keys, tracing, whole)


def require_free_ports(settings: Settings) -> None:
    """Return if the ports beside that of HTTP are free.

    Raises:
        SettingsError: one is taken; the application takes them, when it is too late to say briefly that it cannot.
    """
    metrics = taken_port([settings.metrics_host], settings.metrics_port) if settings.metrics_port else nullcontext()
    grpc = taken_port(settings.host, settings.grpc_port) if settings.grpc_port else nullcontext()
    with metrics, grpc:
        pass


def _serve_on(
    listeners: list[socket.socket],
    settings: Settings,
    folder: Path,
    manifest: Manifest,
    keys: KeySource | None,
    tracing: Tracing | None,
    whole: Whole | None,
) -> int:
    """Open the model, and serve when that is done."""
    wait_for_pool = begin_pool(settings, folder, manifest)
    # Imported while the worker opens the model: together they take most of the time to the first answer.
    from service.app import create_app
    from service.http.server import HttpServer

    app = create_app(settings, wait_for_pool(), keys, tracing, whole=whole)
    on_listening = whole.tell_listening if whole else None
    return 0 if HttpServer(app, app.context, app.turns, on_listening).run(listeners) else 1
