"""Exchanges, without a network: what is sent, when it is sent again, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convnet_aig_client import BatchItem, BusyError, Classification, DeadlineError, NotReachedError, ServiceError
from convnet_aig_client.attempts import Attempts
from convnet_aig_client.calls import Calls
from convnet_aig_client.exchange import Attempt, Exchange, Reply
from convnet_aig_client.images import ImageFile
from tests.clients.answered import classification, item, refusal

IMAGES = [ImageFile(f"{number}.png", bytes([number])) for number in range(3)]
BUSY = Reply(429, {"retry-after": "2"}, json.dumps(refusal("overloaded")).encode())
LOST = NotReachedError(None, "connection_lost", "broken")


class Network:
    """Hands out outcomes, and lets the time pass that is waited for.

    Attributes:
        attempts: that were made.
    """

    def __init__(self, *outcomes: Reply | ServiceError) -> None:
        self.attempts: list[Attempt] = []
        self._outcomes = iter(outcomes)
        self._now = 0.0
        self.calls = Calls(10, lambda timeout_s: Attempts(timeout_s, 5, lambda: self._now, lambda: 1.0))

    def run(self, exchange: Exchange[Any]) -> Any:
        try:
            attempt = next(exchange)
            while True:
                self.attempts.append(attempt)
                self._now += attempt.pause_s
                attempt = exchange.send(next(self._outcomes))
        except StopIteration as end:
            return end.value

    def classify(self, **options: Any) -> Classification:
        return self.run(self.calls.classify(IMAGES[0], **options))

    def classify_batch(self, **options: Any) -> list[BatchItem]:
        return self.run(self.calls.classify_batch(IMAGES, **options))

    @property
    def pauses(self) -> list[float]:
        return [attempt.pause_s for attempt in self.attempts]

    @property
    def files(self) -> list[list[str]]:
        return [[name for _, (name, _) in attempt.request.files] for attempt in self.attempts]


def told(*items: dict[str, Any]) -> Reply:
    return Reply(200, {}, json.dumps({"results": items}).encode())


def refused(status: int, type_: str, **headers: str) -> Reply:
    return Reply(status, headers, json.dumps(refusal(type_)).encode())


ONE = Reply(200, {}, json.dumps(classification()).encode())


def test_options_become_path_and_query() -> None:
    network = Network(ONE)
    network.classify(model="a/b", version="1", top_k=2, graph="none", budget=0.5, degrade="never", max_latency_ms=9)
    request = network.attempts[0].request
    assert request.path == "/models/a%2Fb/versions/1/classify"
    assert request.query == {
        "top_k": "2",
        "graph": "none",
        "budget": "0.5",
        "degrade": "never",
        "max_latency_ms": "9",
    }


def test_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="topk"):
        Network().classify(topk=1)


def test_version_needs_a_model() -> None:
    with pytest.raises(ValueError, match="model"):
        Network().classify(version="1")


def test_busy_service_is_asked_again_when_it_says_so() -> None:
    network = Network(BUSY, BUSY, ONE)
    assert network.classify().predictions[0].label == "cat"
    assert network.pauses == [0, 2.1, 2.2]
    assert [attempt.timeout_s for attempt in network.attempts] == pytest.approx([10, 7.9, 5.7])


def test_busy_service_beyond_the_deadline_is_given_up_at_once() -> None:
    network = Network(BUSY)
    with pytest.raises(BusyError, match="told to people") as raised:
        network.classify(timeout=2)
    assert len(network.attempts) == 1
    error = raised.value
    assert (error.status, error.type, error.request_id, error.retry_after_s) == (429, "overloaded", "r1", 2)


def test_retry_after_may_be_a_date() -> None:
    dates = {"date": "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after": "Sun, 06 Nov 1994 08:49:40 GMT"}
    network = Network(Reply(503, dates, b""), ONE)
    network.classify()
    assert network.pauses == [0, 3.1]


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "Sun, 99 Nov 1994 08:49:40 GMT", "٣"])
def test_retry_after_that_is_none_is_ignored(value: str) -> None:
    network = Network(Reply(503, {"retry-after": value, "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, b""), ONE)
    network.classify()
    assert network.pauses == [0, 0.1]


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500])
def test_error_that_waiting_does_not_mend_is_told_at_once(status: int) -> None:
    network = Network(refused(status, "some_type"))
    with pytest.raises(ServiceError) as raised:
        network.classify()
    assert type(raised.value) is ServiceError
    assert (raised.value.status, raised.value.type) == (status, "some_type")


@pytest.mark.parametrize(("status", "type_"), [(504, "deadline_exceeded"), (408, "upload_timeout")])
def test_late_answer_has_an_error_of_its_own(status: int, type_: str) -> None:
    with pytest.raises(DeadlineError):
        Network(refused(status, type_)).classify()


def test_answer_of_a_proxy_is_told_by_its_status() -> None:
    with pytest.raises(ServiceError) as raised:
        Network(Reply(502, {"x-request-id": "r2"}, b"<html>Bad gateway")).classify()
    assert (raised.value.type, raised.value.request_id) == ("http_502", "r2")


def test_broken_connection_is_tried_again_once() -> None:
    network = Network(LOST, LOST)
    with pytest.raises(NotReachedError):
        network.classify()
    assert len(network.attempts) == 2
    assert Network(LOST, ONE).classify().model.name == "small"


def test_only_images_that_the_moment_was_against_are_sent_again() -> None:
    first = told(item("overloaded", failed=True), item("corrupt_image", failed=True), item("worker_lost", failed=True))
    network = Network(first, told(item("cat"), item("ship")))
    items = network.classify_batch(budget=[0.1, 0.2, 0.3])
    assert [each.answer.predictions[0].label if each.answer else each.error for each in items] == [
        "cat",
        items[1].error,
        "ship",
    ]
    assert network.files == [["0.png", "1.png", "2.png"], ["0.png", "2.png"]]
    assert [each.request.fields["budget"] for each in network.attempts] == [["0.1", "0.2", "0.3"], ["0.1", "0.3"]]


def test_answers_outlive_what_happens_to_the_rest() -> None:
    first = told(item("cat"), item("overloaded", failed=True), item("ship"))
    for after in (refused(401, "unauthorized"), BUSY, DeadlineError(None, "deadline_exceeded", "late"), told()):
        network = Network(first, *[after] * 5)
        items = network.classify_batch()
        assert [bool(each.answer) for each in items] == [True, False, True]
        assert items[1].error
        assert items[1].error.type == "overloaded"


def test_image_that_stays_refused_keeps_its_error() -> None:
    refusals = [told(*[item("no_worker", failed=True)] * 3)] * 5
    network = Network(*refusals)
    assert {each.error.type for each in network.classify_batch() if each.error} == {"no_worker"}
    assert len(network.attempts) == 5


def test_batch_that_is_refused_as_a_whole_is_sent_again() -> None:
    network = Network(BUSY, told(item("cat"), item("cat"), item("cat")))
    assert len(network.classify_batch()) == 3


def test_one_budget_goes_with_every_image() -> None:
    network = Network(told(item("cat"), item("cat"), item("cat")))
    network.classify_batch(budget=0.5)
    assert network.attempts[0].request.fields == {"budget": ["0.5"] * 3}


def test_budgets_must_be_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="2 budgets for 3 images"):
        Network().classify_batch(budget=[0.5, 1])


def test_no_images_need_no_request() -> None:
    network = Network()
    assert network.run(network.calls.classify_batch([])) == []
    assert network.attempts == []


@pytest.mark.parametrize("results", [[], [item("cat")] * 4, [item("cat") | {"answer": None}] * 3])
def test_batch_with_other_results_than_images_is_an_error(results: list[dict[str, Any]]) -> None:
    with pytest.raises(ServiceError, match="3 images") as raised:
        Network(told(*results)).classify_batch()
    assert raised.value.type == "invalid_answer"
