"""Many connections, or much on each: what one read of the event loop costs, so many times."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from contextlib import ExitStack

import pytest

from tests.hostile.bystander import nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import ALIVE, connect, post, read_to_end, request, statuses
from tests.image_files import pngs

# How long a flood goes on, and how long the slowest machine takes to answer each of its connections, in seconds.
_FLOOD_S, _PATIENCE_S = 1.0, 60.0
_SOON_S = 8.0  # connections that say nothing are open for longer
_PAGE = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def _pour(connections: list[socket.socket], data: bytes, seconds: float = _FLOOD_S) -> int:
    """Send data on all connections, again and again, as fast as the server takes it; how many bytes it took."""
    sent = dict.fromkeys(connections, 0)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_WRITE)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and selector.get_map():
            for key, _ in selector.select(left):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    sent[connection] += connection.send(memoryview(data)[sent[connection] % len(data) :])
                except OSError:  # the server has ended it
                    selector.unregister(connection)
    return sum(sent.values())


def _keep_asking(connections: list[socket.socket], asked: bytes, seconds: float) -> list[int]:
    """Ask on every connection whenever it has had its answer; how many answers each has had.

    Goes on after so many seconds until each has had one, which says that none waits for ever.
    """
    answers = dict.fromkeys(connections, 0)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(asked)
        started = time.monotonic()
        while (spent := time.monotonic() - started) < (seconds if all(answers.values()) else _PATIENCE_S):
            for key, _ in selector.select(max(seconds - spent, 0.1)):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if came := connection.recv(1 << 18).count(b"HTTP/1.1 200 "):
                    answers[connection] += came
                    connection.sendall(asked)
    return [*answers.values()]


def _many(stack: ExitStack, victim: Victim, count: int) -> list[socket.socket]:
    return [stack.enter_context(connect(victim.port)) for _ in range(count)]


@pytest.mark.parametrize("count", [5, 40, 150])
@pytest.mark.parametrize("asked", [_PAGE, ALIVE, b"POST /nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"])
def test_pipelined_requests_whose_answers_nobody_reads(victim: Victim, count: int, asked: bytes) -> None:
    with nobody_is_harmed(victim), ExitStack() as stack:
        assert _pour(_many(stack, victim, count), asked * 14_000) > count * len(asked)


def test_many_addresses_that_ask_for_much_again_and_again(victim: Victim) -> None:
    asked = request("GET /metrics HTTP/1.1", "host: a", close=False)
    with nobody_is_harmed(victim), ExitStack() as stack:
        addresses = [f"127.0.1.{number}" for number in range(1, 41)] * 10
        connections = [stack.enter_context(connect(victim.port, address)) for address in addresses]
        assert min(_keep_asking(connections, asked, 3 * _FLOOD_S)) > 0


def test_connections_of_one_address_are_answered_alike(victim: Victim) -> None:
    with nobody_is_harmed(victim), ExitStack() as stack:
        answers = _keep_asking(_many(stack, victim, 300), ALIVE, 3 * _FLOOD_S)
    assert min(answers) > max(answers) / 4


@pytest.mark.parametrize("target", ["/classify", "/nothing"])
def test_bodies_of_chunks_of_one_byte(victim: Victim, target: str) -> None:
    head = request(f"POST {target} HTTP/1.1", "host: a", "content-type: image/png", "transfer-encoding: chunked")
    with nobody_is_harmed(victim), ExitStack() as stack:
        connections = _many(stack, victim, 150)
        for connection in connections:
            connection.sendall(head)
        assert _pour(connections, b"1\r\nx\r\n" * 20_000) > 0


def test_heads_of_tiny_headers_that_end_all_at_once(victim: Victim) -> None:
    head = request("GET /healthz HTTP/1.1", "host: a", *["x:"] * 3_900)
    with nobody_is_harmed(victim), ExitStack() as stack:
        connections = _many(stack, victim, 100)
        for connection in connections:
            connection.sendall(head[:-2])
        for connection in connections:
            connection.sendall(head[-2:])
        told = [_told(connection) for connection in connections]
    assert set(told) == {431}


def test_address_has_half_of_all_connections_and_others_are_served(victim: Victim) -> None:
    with nobody_is_harmed(victim), ExitStack() as stack:
        connections = _many(stack, victim, 1200)
        for connection in connections:
            connection.setblocking(False)
        told = [_came(connection) for connection in connections]
        give_up = time.monotonic() + _SOON_S
        while told.count(None) > 1024 and time.monotonic() < give_up:
            time.sleep(0.1)
            told = [
                _came(connection) if text is None else text for text, connection in zip(told, connections, strict=True)
            ]
        assert told.count(None) == 1024
        assert {tuple(statuses(text)) for text in told if text} <= {(503,)}
        others = [stack.enter_context(connect(victim.port, f"127.0.1.{number}")) for number in range(1, 200)]
        for connection in others:
            connection.sendall(post(pngs(1)[0]))
        answers = [statuses(read_to_end(connection)) for connection in others]
    assert {status for [status] in answers} <= {200, 429}


def test_connections_that_come_and_go(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        end = time.monotonic() + _FLOOD_S
        while time.monotonic() < end:
            with ExitStack() as stack:
                for number, connection in enumerate(_many(stack, victim, 50)):
                    connection.sendall((_PAGE, ALIVE[:-2], post(pngs(1)[0]), b"")[number % 4])
            time.sleep(0.02)


def test_connections_that_are_reset_as_soon_as_they_have_asked(victim: Victim) -> None:
    asked = request("GET /metrics HTTP/1.1", "host: a", "x: " + "y" * 7_900, close=False)
    at_once = struct.pack("ii", 1, 0)
    with nobody_is_harmed(victim):
        end = time.monotonic() + 3 * _FLOOD_S
        while time.monotonic() < end:
            with connect(victim.port) as connection:
                connection.sendall(asked)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)


def _told(connection: socket.socket) -> int | None:
    """The status of the only answer; None where the connection was reset, as what nobody reads has it."""
    try:
        (status,) = statuses(read_to_end(connection))
    except ConnectionResetError:
        return None
    return status


def _came(connection: socket.socket) -> bytes | None:
    """What has come; None where nothing has, and the connection is open."""
    try:
        return connection.recv(4096)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""
