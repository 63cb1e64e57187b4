"""Ports: taken before anything else is begun, listened on when the service is ready."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic_settings import SettingsError

# What the system keeps for each connection, in bytes: of answers that the client has not read, and of what it has sent
# and the server has not read. By itself it would keep megabytes: with all connections there may be, gigabytes, and
# whoever asks much and reads nothing would have all those answers made.
_UNREAD_BYTES, _AHEAD_BYTES = 131_072, 262_144
_REMEDIES = {
    errno.EADDRINUSE: "; stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: ", as it is none of this machine's; 0.0.0.0 stands for all of them",
    errno.EACCES: "; ports from 1024 on are open to all users",
}
_ATTACH_FILTER, _RETURN = 26, 0x06  # SO_ATTACH_FILTER of socket(7), and its instruction BPF_RET | BPF_K


@contextmanager
def taken_port(hosts: Sequence[str], port: int, shared: bool = False) -> Iterator[list[socket.socket]]:
    """A socket for each address of some hosts. Until one is listened on, connections to it are refused.

    Args:
        hosts: names or addresses.
        port: 0 takes one that is free, the same at every address.
        shared: with other processes of this user that say so too; the system spreads connections over those that
            listen.

    Raises:
        SettingsError: the port is taken, or a host is not this machine.
    """
    with ExitStack() as open_meanwhile:
        listeners: list[socket.socket] = []
        taken = set()
        for host in hosts:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
                for family, kind, protocol, _, address in found:
                    if (family, address) in taken:  # some systems name one twice
                        continue
                    taken.add((family, address))
                    listener = open_meanwhile.enter_context(socket.socket(family, kind, protocol))
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or a restart would have to wait
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _AHEAD_BYTES)
                    if shared:
                        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    if family == socket.AF_INET6:
                        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
                    chosen = port or (listeners[0].getsockname()[1] if listeners else 0)
                    listener.bind((address[0], chosen, *address[2:]))
                    listeners.append(listener)
            except OSError as error:
                remedy = _REMEDIES.get(error.errno or 0, "")
                raise SettingsError(f"cannot listen on port {port} of {host}: {error.strerror}{remedy}") from error
        yield listeners


@contextmanager
def claimed(listeners: Iterable[socket.socket]) -> Iterator[None]:
    """Keep others who would share a port from sharing these; the system itself would let another service do so.

    What is claimed is the name of a socket that has no path, which the system gives up with the process (unix(7)).

    Raises:
        SettingsError: somebody has claimed one.
    """
    with ExitStack() as open_meanwhile:
        for listener in listeners:
            host, port = listener.getsockname()[:2]
            claim = open_meanwhile.enter_context(socket.socket(socket.AF_UNIX))
            try:
                claim.bind(f"\0convnet-aig-serving/{host}/{port}")
            except OSError as error:
                remedy = _REMEDIES.get(error.errno or 0, "")
                raise SettingsError(f"cannot listen on port {port} of {host}: {error.strerror}{remedy}") from error
        yield


@contextmanager
def taken_path(path: Path | None) -> Iterator[list[socket.socket]]:
    """A Unix socket at a path, for the user of this process alone; none where there is no path.

    Raises:
        SettingsError: it cannot be made there.
    """
    if path is None:
        yield []
        return
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            if path.is_socket():  # what was served there has ended, or is to be replaced
                path.unlink()
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
        except OSError as error:
            raise SettingsError(f"cannot listen at {path}: {error.strerror or error}") from error
        try:
            yield [listener]
        finally:
            path.unlink(missing_ok=True)


def is_listening(listener: socket.socket) -> bool:
    """Whether connections to a socket are accepted."""
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # it is closed
        return False


def let_nobody_in(listener: socket.socket) -> None:
    """Stop accepting new connections; those that are queued can still be accepted.

    A client that connects now tries again after a second, and is refused when the socket has been closed meanwhile.
    Where Linux does not permit a filter, hardly any connection is let in instead of none.
    """
    listener.listen(0)
    with suppress(OSError):  # containers may not filter
        drop_all = ctypes.create_string_buffer(
            struct.pack("HBBI", _RETURN, 0, 0, 0)
        )  # struct sock_filter: no bytes pass
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_all)))


def url(listener: socket.socket) -> str:
    """What to ask a socket's service at."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
