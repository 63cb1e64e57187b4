from __future__ import annotations

from collections import Counter

import orjson
import pytest

from bench.chaos.connection import Answer
from bench.chaos.ledger import Counted, Ledger


def _answer(status: int, body: object) -> Answer:
    return Answer(status, {}, orjson.dumps(body))


def _error(status: int, type_: str) -> Answer:
    return _answer(status, {"error": {"type": type_, "message": "it is so"}})


OK = _answer(200, {"predictions": []})
EXPOSITION = """\
aig_requests_total{outcome="ok",route="/classify"} 2.0
aig_requests_total{outcome="corrupt_image",route="/classify"} 1.0
aig_requests_total{outcome="client_gone",route="/classify"} 1.0
aig_request_seconds_count{route="/classify"} 4.0
aig_images_total{outcome="ok"} 2.0
aig_images_total{outcome="corrupt_image"} 1.0
aig_decode_seconds_count 2.0
aig_worker_restarts_total{reason="died"} 1.0
"""


@pytest.fixture
def ledger() -> Ledger:
    """What clients saw when the service counted as above."""
    ledger = Ledger()
    for answer in (OK, OK, _error(422, "corrupt_image")):
        ledger.note("/classify", answer)
    ledger.note_left("/classify")
    ledger.losses["died"] = 1
    return ledger


def test_counters_that_come_to_what_clients_saw_are_right(ledger: Ledger) -> None:
    assert list(ledger.problems(Counted.of(EXPOSITION))) == []


@pytest.mark.parametrize(
    ("counted", "instead", "problem"),
    [
        ('"ok",route="/classify"} 2.0', '"ok",route="/classify"} 1.0', "/classify ok: 2 seen, 1 counted"),
        ('"corrupt_image",route="/classify"} 1.0', '"corrupt_image",route="/classify"} 2.0', "1 seen, 2 counted"),
        ('"client_gone",route="/classify"} 1.0', '"client_gone",route="/classify"} 0.0', "1 clients left, 0 of them"),
        ('"client_gone",route="/classify"} 1.0', '"client_gone",route="/classify"} 2.0', "1 clients left, 2 of them"),
        ('seconds_count{route="/classify"} 4.0', 'seconds_count{route="/classify"} 3.0', "4 counted, 3 timed"),
        ('images_total{outcome="ok"} 2.0', 'images_total{outcome="ok"} 1.0', "images ok: 2 seen, 1 counted"),
        ('images_total{outcome="ok"} 2.0', 'images_total{outcome="ok"} 4.0', "2 counted that no client saw"),
        ("decode_seconds_count 2.0", "decode_seconds_count 3.0", "images: 2 counted, 3 timed"),
        ('reason="died"} 1.0', 'reason="died"} 2.0', "1 workers died, 2 counted"),
        ('reason="died"', 'reason="stuck"', "0 workers stuck, 1 counted"),
    ],
)
def test_counter_that_is_off_by_one_is_found(ledger: Ledger, counted: str, instead: str, problem: str) -> None:
    assert counted in EXPOSITION
    problems = list(ledger.problems(Counted.of(EXPOSITION.replace(counted, instead))))
    assert any(problem in found for found in problems), problems


def test_client_that_left_may_have_been_answered(ledger: Ledger) -> None:
    answered = EXPOSITION.replace('"ok",route="/classify"} 2.0', '"ok",route="/classify"} 3.0')
    answered = answered.replace('"client_gone",route="/classify"} 1.0', '"client_gone",route="/classify"} 0.0')
    answered = answered.replace('"ok"} 2.0', '"ok"} 3.0').replace(
        "decode_seconds_count 2.0", "decode_seconds_count 3.0"
    )
    assert list(ledger.problems(Counted.of(answered))) == []


def test_client_that_left_cannot_have_sent_a_corrupt_image(ledger: Ledger) -> None:
    told = EXPOSITION.replace("corrupt_image", "client_gone_too").replace('client_gone"', 'corrupt_image"')
    assert list(ledger.problems(Counted.of(told)))


def test_only_a_body_that_was_no_http_may_be_counted_as_malformed() -> None:
    told = Counted.of(
        'aig_requests_total{outcome="malformed_request",route="/classify"} 1.0\n'
        'aig_request_seconds_count{route="/classify"} 1.0\n'
    )
    broken, left = Ledger(), Ledger()
    broken.note_broken("/classify")
    left.note_left("/classify")
    assert list(broken.problems(told)) == []
    assert list(left.problems(told)) == ["/classify malformed_request: 0 seen, 1 counted"]


def test_every_image_of_a_batch_is_noted() -> None:
    ledger = Ledger()
    item = {"filename": None, "answer": {}, "error": None}
    failed = {"filename": None, "answer": None, "error": {"type": "not_an_image", "message": "no"}}
    ledger.note("/classify/batch", _answer(200, {"results": [item, failed, item]}), images=3)
    assert ledger.images == Counter(ok=2, not_an_image=1)
    assert ledger.requests == Counter({("/classify/batch", "ok"): 1})


def test_refused_batch_is_counted_as_one_image_or_as_all() -> None:
    ledger = Ledger()
    ledger.note("/classify/batch", _error(429, "overloaded"), images=3)
    for images, problems in ((0, 1), (1, 0), (3, 0), (4, 1)):
        exposition = (
            'aig_requests_total{outcome="overloaded",route="/classify/batch"} 1.0\n'
            'aig_request_seconds_count{route="/classify/batch"} 1.0\n'
            f'aig_images_total{{outcome="overloaded"}} {images}.0\n'
        )
        assert len(list(ledger.problems(Counted.of(exposition)))) == problems
