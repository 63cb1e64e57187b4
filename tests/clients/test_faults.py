"""Both clients against servers that fail."""

from __future__ import annotations

import logging
import pickle
import socket
import time

import pytest

from convnet_aig_client import BusyError, DeadlineError, NotReachedError, ServiceError
from tests.clients.answered import classification, item, refusal
from tests.clients.conftest import MakeClient
from tests.clients.fake_server import answers, drips, fake_server, is_silent, resets
from tests.image_files import solid

KEY = "a-key-nobody-may-see"
IMAGE = solid(1)
BUSY = answers(refusal("overloaded"), 429, Retry_After="1")
FINE = answers(classification())


def test_retry_after_is_waited_for(make_client: MakeClient) -> None:
    with fake_server(BUSY, FINE) as server:
        began = time.monotonic()
        assert make_client(server.url).classify(IMAGE).predictions[0].label == "cat"
        assert time.monotonic() - began >= 1
    assert [each.body for each in server.asked] == [IMAGE] * 2
    first, second = (int(each.headers["x-request-timeout-ms"]) for each in server.asked)
    assert first <= 30_000
    assert second <= first - 1000


def test_retry_after_beyond_the_deadline_is_not_waited_for(make_client: MakeClient) -> None:
    with fake_server(answers(refusal("overloaded"), 429, Retry_After="30")) as server:
        began = time.monotonic()
        with pytest.raises(BusyError) as raised:
            make_client(server.url).classify(IMAGE, timeout=20)
        assert time.monotonic() - began < 20
    assert raised.value.retry_after_s == 30
    assert len(server.asked) == 1


def test_connection_that_is_reset_in_an_answer_is_made_again_once(make_client: MakeClient) -> None:
    with fake_server(resets, FINE) as server:
        assert make_client(server.url).classify(IMAGE).predictions
    with fake_server(resets) as server, pytest.raises(NotReachedError) as raised:
        make_client(server.url).classify(IMAGE)
    assert raised.value.type == "connection_lost"
    assert len(server.asked) == 2


@pytest.mark.parametrize("behaviour", [is_silent, drips])
def test_slow_server_is_given_up_at_the_deadline(make_client: MakeClient, behaviour: object) -> None:
    with fake_server(behaviour) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineError) as raised:
            make_client(server.url).classify(IMAGE, timeout=1.5)
        assert 1.49 < time.monotonic() - began < 10
    assert raised.value.type == "deadline_exceeded"
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000, b'{"predictions": 3}', b"<html>"]
)
def test_nonsense_is_no_answer(make_client: MakeClient, body: bytes) -> None:
    with fake_server(answers(body, X_Request_ID="r7")) as server, pytest.raises(ServiceError) as raised:
        make_client(server.url).classify(IMAGE)
    assert (raised.value.status, raised.value.type, raised.value.request_id) == (200, "invalid_answer", "r7")
    assert len(server.asked) == 1


def test_body_that_is_not_encoded_as_it_says_is_no_answer(make_client: MakeClient) -> None:
    with fake_server(answers(b"{}", Content_Encoding="gzip")) as server, pytest.raises(ServiceError) as raised:
        make_client(server.url).classify(IMAGE)
    assert raised.value.type == "invalid_answer"


def test_nonsense_instead_of_http_is_a_lost_connection(make_client: MakeClient) -> None:
    async def babbles(writer: object) -> None:
        writer.write(b"good morning\r\n\r\n")

    with fake_server(babbles) as server, pytest.raises(NotReachedError):
        make_client(server.url).classify(IMAGE)


@pytest.mark.parametrize("status", [204, 302, 404, 418, 502])
def test_answer_of_something_else_is_told_by_its_status(make_client: MakeClient, status: int) -> None:
    with fake_server(answers(b"", status, Location="http://127.0.0.1:1/")) as server:
        with pytest.raises(ServiceError) as raised:
            make_client(server.url).classify(IMAGE)
        assert (raised.value.status, raised.value.type) == (status, f"http_{status}")
        if status != 204:
            with pytest.raises(ServiceError):
                make_client(server.url).ready()


def test_images_of_a_batch_are_sent_again_as_they_were(make_client: MakeClient) -> None:
    results = [item("overloaded", failed=True), item("cat")]
    with fake_server(answers({"results": results}), answers({"results": [item("ship")]})) as server:
        first, second = make_client(server.url).classify_batch([solid(1), solid(2)])
    assert (first.answer.predictions[0].label, second.answer.predictions[0].label) == ("ship", "cat")
    bodies = [each.body for each in server.asked]
    assert [(solid(1) in body, solid(2) in body) for body in bodies] == [(True, True), (True, False)]


def test_refused_connections_are_tried_again(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(NotReachedError) as raised:
        make_client(f"http://127.0.0.1:{port}", attempts=2).models(timeout=2)
    assert time.monotonic() - began < 2
    assert raised.value.type == "not_reached"


def test_path_below_which_a_proxy_shows_the_service_is_kept(make_client: MakeClient) -> None:
    with fake_server(FINE) as server:
        make_client(f"{server.url}/below/this").classify(IMAGE, model="a/b", version="1 2")
    assert server.asked[0].line == "POST /below/this/models/a%2Fb/versions/1%202/classify HTTP/1.1"


def test_key_is_sent_and_told_to_nobody(make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with fake_server(answers(refusal("unauthorized"), 401)) as server:
        client = make_client(server.url, api_key=KEY)
        with pytest.raises(ServiceError) as raised:
            client.classify(IMAGE)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert caplog.text
    for text in (caplog.text, repr(client), repr(raised.value), str(raised.value)):
        assert KEY not in text


@pytest.mark.parametrize("key", ["a key", "a\nkey", "key\r\nX: 1", "schlüssel", ""])
def test_key_that_is_none_is_refused_and_not_shown(make_client: MakeClient, key: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as raised:
        make_client("http://127.0.0.1:1", api_key=key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:b:c", ""])
def test_url_that_is_none_of_http_is_refused(make_client: MakeClient, url: str) -> None:
    with pytest.raises(ValueError, match="URL of the service"):
        make_client(url)


def test_password_in_the_url_is_not_shown(make_client: MakeClient) -> None:
    assert KEY not in repr(make_client(f"http://me:{KEY}@127.0.0.1:1"))


def test_error_can_be_pickled() -> None:
    error = BusyError(429, "overloaded", "told to people", "r1")
    error.retry_after_s = 3.0
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, copy.retry_after_s) == (BusyError, error.args, 3.0)
