from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from service.engine.ipc.channel import Channel
from service.engine.ipc.frames import Frames, framed, receive
from tests.runtimes import PATIENCE_S

LARGE = bytes(range(256)) * 20_000  # more than a socket takes at once
Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on each kind of loop."""

    def run(scenario: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(scenario, PATIENCE_S))  # type: ignore[arg-type]

    return run


class Sides:
    """A connection and its other side.

    Attributes:
        heard: frames that came.
        ends: how often it was told that the other side is gone.
    """

    def __init__(self) -> None:
        here, self.there = socket.socketpair()
        self.there.settimeout(PATIENCE_S)
        self.heard: list[bytes] = []
        self.ends = 0
        self.connection = Channel(here, Frames(most_bytes=100), self.heard.append, self._end)

    def _end(self) -> None:
        self.ends += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def open_sides() -> AsyncIterator[Sides]:
    sides = Sides()
    await sides.connection.open()
    yield sides
    sides.connection.close()
    sides.there.close()
    await asyncio.sleep(0.01)


def test_frames_are_heard_in_order(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.there.sendall(framed(b"a") + framed(b"b") + framed(b"c")[:5])
            await sides.until(lambda: len(sides.heard) == 2)
            sides.there.sendall(framed(b"c")[5:])
            await sides.until(lambda: len(sides.heard) == 3)
            assert (sides.heard, sides.ends) == ([b"a", b"b", b"c"], 0)

    run(scenario())


def test_frame_is_sent_in_the_same_call(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            assert sides.connection.send(framed(b"now"))
            assert receive(sides.there, Frames()) == b"now"  # without the loop having had a turn

    run(scenario())


def test_what_a_socket_does_not_hold_is_sent_as_there_is_room_and_in_order(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            for frame in (b"first", LARGE, b"last"):
                assert sides.connection.send(framed(frame))
            frames = Frames()

            def receive_all() -> list[bytes]:
                return [receive(sides.there, frames) for _ in range(3)]

            assert await asyncio.to_thread(receive_all) == [b"first", LARGE, b"last"]

    run(scenario())


def test_frames_larger_than_a_socket_holds_cross_each_other(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.connection._frames = Frames()
            assert sides.connection.send(framed(LARGE))
            frames = Frames()

            def other_side() -> bytes:
                sides.there.sendall(framed(LARGE))
                return receive(sides.there, frames)

            assert await asyncio.to_thread(other_side) == LARGE
            await sides.until(lambda: sides.heard == [LARGE])

    run(scenario())


def test_end_of_the_other_side_is_told_once_and_after_its_last_words(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.there.sendall(framed(b"last words"))
            sides.there.close()
            await sides.until(lambda: sides.ends > 0)
            await asyncio.sleep(0.01)
            assert (sides.heard, sides.ends) == ([b"last words"], 1)
            assert not sides.connection.send(framed(b"too late"))

    run(scenario())


def test_last_words_are_heard_though_the_other_side_left_something_unread(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.there.sendall(framed(b"last words"))
            assert sides.connection.send(framed(b"unread"))
            sides.there.close()
            await sides.until(lambda: sides.ends > 0)
            assert (sides.heard, sides.ends) == ([b"last words"], 1)

    run(scenario())


def test_nothing_is_sent_to_a_side_that_is_gone_though_nobody_has_been_told(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.there.close()
            assert not sides.connection.send(framed(b"too late"))
            assert sides.ends == 0
            await sides.until(lambda: sides.ends == 1)

    run(scenario())


def test_other_side_that_is_gone_from_the_beginning_is_told(run: Run) -> None:
    async def scenario() -> None:
        sides = Sides()
        sides.there.close()
        await sides.connection.open()
        await sides.until(lambda: sides.ends == 1)

    run(scenario())


def test_frame_of_absurd_length_is_the_end(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.there.sendall(framed(b"fine") + struct.pack("!Q", 1 << 34) + framed(b"never"))
            await sides.until(lambda: sides.ends == 1)
            assert sides.heard == [b"fine"]

    run(scenario())


def test_nothing_is_heard_after_hanging_up(run: Run) -> None:
    async def scenario() -> None:
        async with open_sides() as sides:
            sides.there.sendall(framed(b"a") + framed(b"b"))
            sides.connection._on_frame = lambda frame: (sides.heard.append(frame), sides.connection.close())[0]
            await sides.until(lambda: len(sides.heard) > 0)
            await asyncio.sleep(0.01)
            assert (sides.heard, sides.ends) == ([b"a"], 0)
            assert sides.there.recv(1) == b""
            assert not sides.connection.send(framed(b"c"))

    run(scenario())
