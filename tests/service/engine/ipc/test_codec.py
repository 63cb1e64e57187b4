from __future__ import annotations

import struct

import pytest

from service.engine.errors import DeadlineExceeded, InferenceFailed, InvalidTensor
from service.engine.ipc import codec as wire
from service.engine.ipc.codec import OutcomeCodec, UnexpectedError
from service.engine.ipc.frames import Frames
from service.engine.job import Answer, ImageJob, Outcome
from service.images.decoding import IMAGE_ERRORS, CorruptImage, NotAnImage
from tests.runtimes import echo_manifest


@pytest.fixture
def codec() -> OutcomeCodec:
    return OutcomeCodec(echo_manifest(), IMAGE_ERRORS)


def _body(frame: bytes) -> bytes:
    """What is in a frame."""
    frames = Frames()
    frames.feed(frame)
    body = frames.take()
    assert body is not None
    return body


def _answer(value: float, **changes: object) -> Answer:
    fields = {
        "logits": (value, 0.0, -value),
        "margins": (value / 2, -1.0),
        "executed": (True, value > 0, False),
        "macs": 2**40 + int(value),
        "batch_size": 3,
        "decode_s": value / 8,
        "queue_s": value / 32,
        "inference_s": value / 16,
    }
    return Answer(**(fields | changes))  # type: ignore[arg-type]


def _through(codec: OutcomeCodec, outcomes: list[Outcome]) -> list[Outcome]:
    return codec.unpack(_body(codec.pack(outcomes)), len(outcomes))


def test_jobs_arrive_as_they_were_sent() -> None:
    jobs = [
        ImageJob(b"an image", 1.5, 9.0),
        ImageJob(b"", 0.25, 9.5, gate_offset=-1.5, dear=True),
        ImageJob(bytes(100_000), -2.0, 10.0, is_tensor=True),
    ]
    assert wire.unpack_jobs(_body(wire.pack_jobs(jobs))) == jobs


def test_check_is_told_from_jobs() -> None:
    check = wire.Check(7, 16)
    assert wire.unpack_jobs(_body(wire.pack_check(check))) == check


def test_answers_arrive_as_they_were_given(codec: OutcomeCodec) -> None:
    answers = [_answer(value) for value in (1.0, -2.0, 0.5)]
    assert _through(codec, list(answers)) == answers


def test_every_failure_keeps_its_kind_its_message_and_its_row(codec: OutcomeCodec) -> None:
    failures = [kind(f"{kind.__name__} says so, ÄÖ\n") for kind in IMAGE_ERRORS]
    outcomes: list[Outcome] = [_answer(1.0), *failures, _answer(2.0), DeadlineExceeded(), InferenceFailed()]
    told = _through(codec, outcomes)
    assert [type(outcome) for outcome in told] == [type(outcome) for outcome in outcomes]
    last = len(failures) + 1
    assert [str(one) for one in told[1:last]] == [str(one) for one in failures]
    assert [told[row].logits[0] for row in (0, last)] == [1.0, 2.0]  # type: ignore[union-attr]


def test_what_is_wrong_with_a_tensor_is_told_with_its_message(codec: OutcomeCodec) -> None:
    (told,) = _through(codec, [InvalidTensor("it is too short")])
    assert type(told) is InvalidTensor
    assert str(told) == "it is too short"


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
    frame = _body(codec.pack([_answer(1.0), _answer(2.0)]))
    with pytest.raises(ValueError, match=f"2 outcomes for {jobs} jobs"):
        codec.unpack(frame, jobs)


@pytest.mark.parametrize("batch_size", [-1, 0, 4, 2**31 - 1])
def test_answer_from_a_batch_that_cannot_have_been_is_refused(codec: OutcomeCodec, batch_size: int) -> None:
    frame = _body(codec.pack([_answer(1.0), _answer(2.0, batch_size=batch_size), _answer(3.0)]))
    with pytest.raises(ValueError, match=f"a batch of {batch_size}"):
        codec.unpack(frame, 3)


@pytest.mark.parametrize("outcomes", [[], [InferenceFailed()]])
def test_check_is_answered_with_what_was_wrong(codec: OutcomeCodec, outcomes: list[Outcome]) -> None:
    told = codec.unpack(_body(codec.pack(outcomes)), 0)
    assert [type(outcome) for outcome in told] == [type(outcome) for outcome in outcomes]


@pytest.mark.parametrize("frame", [b"", b"???", struct.pack("!Q", 1 << 40), struct.pack("!Q", 0) + b"?"])
def test_frame_that_means_nothing_is_refused(codec: OutcomeCodec, frame: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        codec.unpack(frame, 1)
