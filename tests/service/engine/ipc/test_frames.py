from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from threading import Thread

import pytest

from service.engine.ipc.frames import Frames, framed, receive
from tests.runtimes import PATIENCE_S

Ends = tuple[socket.socket, socket.socket]
LARGE = bytes(range(256)) * 20_000  # more than a socket takes at once


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The two ends of a connection."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(PATIENCE_S)
        there.settimeout(PATIENCE_S)
        yield here, there


def _all(frames: Frames) -> list[bytes]:
    return list(iter(frames.take, None))


@pytest.mark.parametrize("piece", [1, 7, 8, 9, 100, 10_000_000])
def test_frames_are_told_apart_however_they_come(piece: int) -> None:
    sent = [b"abc", b"", bytes(range(200)), b"d", b""]
    stream = b"".join(map(framed, sent))
    frames, came = Frames(), []
    for start in range(0, len(stream), piece):
        frames.feed(stream[start : start + piece])
        came += _all(frames)
    assert came == sent


def test_frame_of_several_parts_is_one() -> None:
    frames = Frames()
    frames.feed(framed(b"a", b"", b"bc"))
    assert _all(frames) == [b"abc"]


def test_frames_that_are_left_lying_are_not_lost() -> None:
    frames = Frames()
    frames.feed(framed(b"first") + framed(b"second"))
    assert frames.take() == b"first"
    frames.feed(framed(b"third")[:10])
    assert frames.take() == b"second"
    assert frames.take() is None
    frames.feed(framed(b"third")[10:] + framed(b"fourth"))
    assert _all(frames) == [b"third", b"fourth"]


def test_no_room_is_made_for_a_frame_of_absurd_length() -> None:
    frames = Frames(most_bytes=8)
    frames.feed(framed(bytes(8)))
    assert frames.take() == bytes(8)
    frames.feed(struct.pack("!Q", 1 << 62))
    with pytest.raises(ValueError, match=str(1 << 62)):
        frames.take()


def test_frames_are_received_as_they_were_sent(ends: Ends) -> None:
    here, there = ends
    sending = Thread(target=lambda: [here.sendall(framed(each)) for each in (b"abc", b"", LARGE)])
    sending.start()
    frames = Frames()
    assert [receive(there, frames) for _ in range(3)] == [b"abc", b"", LARGE]
    sending.join(PATIENCE_S)


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", struct.pack("!Q", 10) + b"12345"], ids=["before", "length", "body"])
def test_connection_closed_within_a_frame_is_told(ends: Ends, sent: bytes) -> None:
    here, there = ends
    here.sendall(sent)
    here.close()
    with pytest.raises(EOFError):
        receive(there, Frames())


@pytest.mark.parametrize("sent", [b"", struct.pack("!Q", 10) + b"12345"], ids=["nothing", "half a frame"])
def test_silence_is_not_waited_out(ends: Ends, sent: bytes) -> None:
    here, there = ends
    there.settimeout(0.05)
    here.sendall(sent)
    with pytest.raises(TimeoutError):
        receive(there, Frames())
