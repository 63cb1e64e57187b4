"""A client that asks for /healthz about every 50 ms: python -m tests.hostile.watcher PORT.

It is a process of its own, so that what a test does meanwhile does not slow it down. It writes a line when it has its
first answer, and, when its standard input ends, how long each answer took, in seconds; infinity for none.
"""

from __future__ import annotations

import math
import select
import socket
import sys
import time

ADDRESS = "127.0.0.99"
_PAUSE_S, _LONGEST_S = 0.05, 30.0
_REQUEST = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


def main() -> None:
    """Ask until standard input ends."""
    port = int(sys.argv[1])
    took = [ask(port)]
    print("watches", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        took.append(ask(port))
    print(*took)


def ask(port: int, longest_s: float = _LONGEST_S) -> float:
    """How long one answer took, on a fresh connection."""
    began = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), longest_s, (ADDRESS, 0)) as connection:
            connection.sendall(_REQUEST)
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    except OSError:
        return math.inf
    return time.monotonic() - began if answer.startswith(b"HTTP/1.1 200 ") else math.inf


if __name__ == "__main__":
    main()
