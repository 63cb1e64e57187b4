"""Metrics on a port of their own, which can be kept from those who may reach the service."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_log = logging.getLogger(__name__)

# Far more than ask for metrics at a time; each has a thread.
_MOST_CONNECTIONS = 16
_IDLE_S = 5.0


@contextmanager
def metrics_port(registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    """Tell the metrics at /metrics of a port, in threads of their own.

    Raises:
        OSError: the port is taken, or the address is none of this machine.
    """
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kind: type[_Server] = type("_Server", (_Server,), {"address_family": family})
    server: _Server = make_server(host, port, make_wsgi_app(registry), kind, _Request)
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """Closes connections beyond a number of them at once."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self._free = BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(*arguments)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            try:
                super().finish_request(request, client_address)
            finally:
                self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (socketserver's interface)
        if not isinstance(sys.exception(), OSError):  # which is a client that left, or did nothing
            _log.exception("metrics could not be told")


class _Request(WSGIRequestHandler):
    """Closes a connection on which nothing happens, and logs no requests."""

    timeout = _IDLE_S

    def log_message(self, *_: Any) -> None:
        pass
