"""Both clients against a real service."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from convnet_aig_client import BatchItem, Classification, NotReachedError, ServiceError
from service.access.keys import ApiKey, Keyring
from tests.clients.conftest import MakeClient, url_of
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.http_server import RunningServer, http_serving

KEY = "a-key-nobody-may-see"
KEYS = Keyring([ApiKey(name="one", sha256=hashlib.sha256(KEY.encode()).hexdigest())])


@pytest.fixture
def echo_runtime() -> Iterator[EchoRuntime]:
    runtime = EchoRuntime()
    yield runtime
    runtime.release()


def test_image_may_be_bytes_a_path_or_a_file(
    make_client: MakeClient, shipped: RunningServer, photographs: Path
) -> None:
    client, path = make_client(url_of(shipped)), photographs / "cat.jpg"
    data = path.read_bytes()
    answers = [client.classify(image) for image in (data, path, str(path), io.BytesIO(data))]
    assert [answer.predictions for answer in answers] == [answers[0].predictions] * 4
    assert answers[0].predictions[0].label == "cat"
    with path.open("rb") as file:
        assert client.classify(file).predictions == answers[0].predictions


def test_file_opened_as_text_is_refused(make_client: MakeClient, shipped: RunningServer) -> None:
    with pytest.raises(TypeError, match="binary"):
        make_client(url_of(shipped)).classify(io.StringIO("text"))


@pytest.mark.parametrize(
    ("graph", "has"), [("full", (True, True)), ("summary", (False, True)), ("none", (False, False))]
)
def test_answer_has_what_was_asked_for(
    make_client: MakeClient, shipped: RunningServer, photographs: Path, graph: str, has: tuple[bool, bool]
) -> None:
    answer = make_client(url_of(shipped)).classify(photographs / "cat.jpg", graph=graph, top_k=2, budget=0.5)
    assert (answer.inference_graph is not None, answer.layers is not None) == has
    assert len(answer.predictions) == 2
    assert answer.compute.budget == 0.5
    assert answer.model.name == "convnet-aig-38-cifar10"


def test_batch_has_an_answer_or_an_error_for_each(
    make_client: MakeClient, shipped: RunningServer, photographs: Path
) -> None:
    images = [photographs / "cat.jpg", b"no image", photographs / "ship.png"]
    cat, bad, ship = make_client(url_of(shipped)).classify_batch(images, budget=[0.4, 0.4, 1], graph="none")
    assert (cat.filename, ship.filename) == ("cat.jpg", "ship.png")
    assert (cat.answer.compute.budget, ship.answer.compute.budget) == (0.4, 1)
    assert (bad.answer, bad.error.type) == (None, "not_an_image")


def test_models_are_listed_and_described(make_client: MakeClient, shipped: RunningServer, photographs: Path) -> None:
    client = make_client(url_of(shipped))
    (listed,) = client.models()
    named, default = client.model(listed.name, listed.version), client.model()
    assert named.labels == default.labels
    assert len(named.labels) == listed.labels == 10
    assert named.budgets
    answer = client.classify(photographs / "cat.jpg", model=listed.name, version=listed.version)
    assert (answer.model.name, answer.model.version) == (listed.name, listed.version)
    with pytest.raises(ServiceError, match="nobody") as raised:
        client.classify(photographs / "cat.jpg", model="nobody")
    assert raised.value.status == 404


def test_error_has_the_id_of_the_request(make_client: MakeClient, shipped: RunningServer) -> None:
    with pytest.raises(ServiceError) as raised:
        make_client(url_of(shipped)).classify(b"no image")
    error = raised.value
    assert (error.status, error.type) == (415, "not_an_image")
    assert error.request_id
    assert error.request_id in str(error)


def test_file_name_that_is_no_text_is_sent(make_client: MakeClient, shipped: RunningServer, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / 'a"b\n') + b"\xff.png"
    Path(os.fsdecode(path)).write_bytes(solid(1))
    (item,) = make_client(url_of(shipped)).classify_batch([os.fsdecode(path)])
    assert isinstance(item, BatchItem)
    assert isinstance(item.answer, Classification)


def test_service_is_ready_until_it_cannot_be_reached(make_client: MakeClient, echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime) as server:
        client = make_client(url_of(server), attempts=1)
        assert client.ready()
        server.context.engine.crew.leave()
        assert not client.ready()
    assert not client.ready()
    with pytest.raises(NotReachedError) as raised:
        client.models()
    assert (raised.value.status, raised.value.type) == (None, "not_reached")


def test_key_opens_a_service_that_asks_for_one(make_client: MakeClient, echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, KEYS) as server:
        assert make_client(url_of(server), api_key=KEY).classify(solid(1)).predictions
        with pytest.raises(ServiceError) as raised:
            make_client(url_of(server)).classify(solid(1))
        assert raised.value.type == "unauthorized"
