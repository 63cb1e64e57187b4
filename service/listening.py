"""Ports: taken before anything else is begun, listened on when the service is ready."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from pydantic_settings import SettingsError

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


@contextmanager
def taken_port(host: str, port: int) -> Iterator[list[socket.socket]]:
    """A socket for each address of a host. Until one is listened on, connections to it are refused.

    Args:
        host: name or address.
        port: 0 takes one that is free.

    Raises:
        SettingsError: the port is taken, or the host is not this machine.
    """
    with ExitStack() as open_meanwhile:
        listeners = []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(found):  # some systems name one twice
                listener = open_meanwhile.enter_context(socket.socket(family, kind, protocol))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or a restart would have to wait
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
                listener.bind(address)
                listeners.append(listener)
        except OSError as error:
            raise SettingsError(f"cannot listen on port {port} of {host}: {error.strerror}") from error
        yield listeners


class Server(uvicorn.Server):
    """Tells where it listens when it does, which uvicorn leaves to those who give it sockets."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        try:
            await super().startup(sockets)
            urls = ", ".join(map(_url, sockets or ()))  # raises where uvloop could not listen, which it does not tell
        except OSError:
            _log.error("cannot listen: another program has begun to listen on the port meanwhile")
            await self.lifespan.shutdown()
            self.started, self.should_exit = False, True
        if self.started:
            _log.info("Uvicorn running on %s (Press CTRL+C to quit)", urls)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
