from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest

from service.engine import wire
from service.engine.errors import DeadlineExceeded, InferenceFailed
from service.engine.wire import OutcomeCodec, UnexpectedError
from service.engine.worker import Answer, Job, Outcome
from service.images import IMAGE_ERRORS, CorruptImage, NotAnImage
from tests.runtimes import PATIENCE_S, echo_manifest
from tests.service.engine.queueing import Clock

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The two ends of a connection."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(PATIENCE_S)
        there.settimeout(PATIENCE_S)
        yield here, there


@pytest.fixture
def codec() -> OutcomeCodec:
    return OutcomeCodec(echo_manifest(), IMAGE_ERRORS)


def _jobs(count: int, queue_s: float = 0.0) -> list[Job[bytes]]:
    return [Job(b"", 1.0, queue_s + row) for row in range(count)]


def _answer(value: float, **changes: object) -> Answer:
    fields = {
        "logits": np.array([value, 0, -value], np.float32),
        "margins": np.array([value / 2, -1], np.float32),
        "executed": np.array([True, value > 0, False]),
        "macs": 2**40 + int(value),
        "batch_size": 3,
        "decode_s": value / 8,
        "queue_s": 0.0,
        "inference_s": value / 16,
    }
    return Answer(**(fields | changes))  # type: ignore[arg-type]


def _through(codec: OutcomeCodec, outcomes: list[Outcome], queue_s: float = 0.0) -> list[Outcome]:
    return codec.unpack(bytearray(b"".join(codec.pack(outcomes))), _jobs(len(outcomes), queue_s))


def test_frames_arrive_as_they_were_sent(ends: Ends) -> None:
    here, there = ends
    large = bytes(range(256)) * 20_000  # more than a socket takes at once
    sending = Thread(target=lambda: [wire.send(here, b"a", b"bc"), wire.send(here), wire.send(here, large)])
    sending.start()
    assert [bytes(wire.receive(there)) for _ in range(3)] == [b"abc", b"", large]
    sending.join(PATIENCE_S)


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", struct.pack("!Q", 10) + b"12345"], ids=["before", "length", "body"])
def test_connection_closed_within_a_frame_is_told(ends: Ends, sent: bytes) -> None:
    here, there = ends
    here.sendall(sent)
    here.close()
    with pytest.raises(EOFError):
        wire.receive(there)


@pytest.mark.parametrize("sent", [b"", struct.pack("!Q", 10) + b"12345"], ids=["nothing", "half a frame"])
def test_silence_is_not_waited_out(ends: Ends, sent: bytes) -> None:
    here, there = ends
    there.settimeout(0.05)
    here.sendall(sent)
    with pytest.raises(TimeoutError):
        wire.receive(there)


def test_no_room_is_made_for_a_frame_of_absurd_length(ends: Ends) -> None:
    here, there = ends
    wire.send(here, bytes(8))
    assert wire.receive(there, most_bytes=8) == bytes(8)
    here.sendall(struct.pack("!Q", 1 << 62))
    with pytest.raises(ValueError, match=str(1 << 62)):
        wire.receive(there, most_bytes=8)


def test_frames_larger_than_a_socket_holds_cross_each_other(ends: Ends) -> None:
    here, there = ends
    large = bytes(range(256)) * 20_000

    def other_side() -> None:
        wire.send(there, large)
        got.append(bytes(wire.receive(there)))

    got: list[bytes] = []
    other = Thread(target=other_side)
    other.start()
    received, told = wire.exchange(here, [large, b"!"], len(large))
    other.join(PATIENCE_S)
    assert (bytes(received), told, got) == (large, True, [large + b"!"])


def test_what_the_other_side_sent_before_it_went_is_received(ends: Ends) -> None:
    here, there = ends
    wire.send(there, b"last words")
    there.close()
    assert wire.exchange(here, [b"too late"], 100) == (b"last words", False)


def test_exchange_with_somebody_who_is_gone_or_silent_fails(ends: Ends) -> None:
    here, there = ends
    here.settimeout(0.05)
    for parts in ([b"small"], [bytes(5_000_000)]):
        with pytest.raises(TimeoutError):
            wire.exchange(here, parts, 100)
    there.close()
    with pytest.raises((EOFError, OSError)):
        wire.exchange(here, [b"anybody?"], 100)


def test_jobs_arrive_as_they_were_sent() -> None:
    jobs = [Job(b"an image", 1.5, 9.0), Job(b"", 0.25, 9.0), Job(bytes(100_000), -2.0, 9.0)]
    clock = Clock()
    told = wire.unpack_jobs(bytearray(b"".join(wire.pack_jobs(jobs, clock))), clock)
    # How long they have waited is for the service alone.
    assert told == [Job(job.payload, job.remaining_s, 0.0) for job in jobs]


def test_time_a_frame_waits_counts_against_its_jobs() -> None:
    clock = Clock()
    frame = bytearray(b"".join(wire.pack_jobs([Job(b"", 1.5, 0.0), Job(b"", 0.25, 0.0)], clock)))
    clock.now += 1.0
    assert wire.unpack_jobs(frame, clock) == [Job(b"", 0.5, 0.0), Job(b"", -0.75, 0.0)]


def test_check_is_told_from_jobs() -> None:
    assert wire.unpack_jobs(bytearray(wire.pack_check(16))) == 16


def test_answers_arrive_as_they_were_given(codec: OutcomeCodec) -> None:
    answers = [_answer(value) for value in (1.0, -2.0, 0.5)]
    told = _through(codec, list(answers), queue_s=7.0)
    for row, (actual, expected) in enumerate(zip(told, answers, strict=True)):
        assert isinstance(actual, Answer)
        for name in ("logits", "margins", "executed"):
            np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
        for name in ("macs", "batch_size", "decode_s", "inference_s"):
            assert getattr(actual, name) == getattr(expected, name)
        assert actual.queue_s == 7.0 + row


def test_every_failure_keeps_its_kind_its_message_and_its_row(codec: OutcomeCodec) -> None:
    failures = [kind(f"{kind.__name__} says so, ÄÖ\n") for kind in IMAGE_ERRORS]
    outcomes: list[Outcome] = [_answer(1.0), *failures, _answer(2.0), DeadlineExceeded(), InferenceFailed()]
    told = _through(codec, outcomes)
    assert [type(outcome) for outcome in told] == [type(outcome) for outcome in outcomes]
    assert [str(one) for one in told[1:6]] == [str(one) for one in failures]
    assert [float(told[row].logits[0]) for row in (0, 6)] == [1.0, 2.0]  # type: ignore[union-attr]


def test_failure_that_nobody_expected_is_named(codec: OutcomeCodec) -> None:
    (told,) = _through(codec, [MemoryError("no room")])
    assert type(told) is UnexpectedError
    assert str(told) == "MemoryError: no room"


def test_failure_that_was_not_agreed_on_is_never_made() -> None:
    # Or a worker that was taken over could choose among all exceptions there are.
    (told,) = _through(OutcomeCodec(echo_manifest(), [NotAnImage]), [CorruptImage("torn")])
    assert type(told) is UnexpectedError


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_outcomes_for_other_jobs_are_refused(codec: OutcomeCodec, jobs: int) -> None:
    frame = bytearray(b"".join(codec.pack([_answer(1.0), _answer(2.0)])))
    with pytest.raises(ValueError, match=f"2 outcomes for {jobs} jobs"):
        codec.unpack(frame, _jobs(jobs))


@pytest.mark.parametrize("frame", [b"", b"???", struct.pack("!Q", 1 << 40), struct.pack("!Q", 0) + b"?"])
def test_frame_that_means_nothing_is_refused(codec: OutcomeCodec, frame: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        codec.unpack(bytearray(frame), _jobs(1))
