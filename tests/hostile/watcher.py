"""A client that asks for /healthz about every 50 ms: python -m tests.hostile.watcher PORT PID.

It is a process of its own, so that what a test does meanwhile does not slow it down. It writes a line when it has its
first answer, and, when its standard input ends, how long each answer took, in seconds; infinity for none. The time in
which it or the server had no core does not count: that is the machine's, on which an attack runs too.
"""

from __future__ import annotations

import math
import os
import select
import socket
import sys
import time

from tests.processes import processor_s

ADDRESS = "127.0.0.99"
_PAUSE_S, _LONGEST_S = 0.05, 30.0
_REQUEST = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


def main() -> None:
    """Ask until standard input ends."""
    port, server = map(int, sys.argv[1:])
    took = [ask(port, server)]
    print("watches", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        took.append(ask(port, server))
    print(*took)


def ask(port: int, server: int, longest_s: float = _LONGEST_S) -> float:
    """How long one answer took, on a fresh connection to a server of this process id."""
    began = _with_a_core_s(server)
    try:
        with socket.create_connection(("127.0.0.1", port), longest_s, (ADDRESS, 0)) as connection:
            connection.sendall(_REQUEST)
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    except OSError:
        return math.inf
    return _with_a_core_s(server) - began if answer.startswith(b"HTTP/1.1 200 ") else math.inf


def _with_a_core_s(server: int) -> float:
    """The time, in seconds, without that in which one of both waited for a core."""
    return time.monotonic() - sum(processor_s(pid)[1] for pid in (server, os.getpid()))


if __name__ == "__main__":
    main()
