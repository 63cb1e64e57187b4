"""Metrics on a port of their own, which can be kept from those who may reach the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server


@contextmanager
def metrics_port(registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    """Tell the metrics at /metrics of a port, in a thread of their own.

    Raises:
        OSError: the port is taken, or the address is none of this machine.
    """
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
