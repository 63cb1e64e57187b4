from __future__ import annotations

from collections.abc import Iterator

import pytest

from artifact.preprocessing import Float32Array
from service.app import create_app
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import local_pool
from service.images.decoding import CorruptImage, ImageTooCostly
from service.settings import Settings
from tests.image_files import solid
from tests.runtimes import EchoRuntime, echo_input
from tests.service.server import Server, as_set

DEAR, TOO_DEAR, CHEAP, DAMAGED = (solid(grey) for grey in (10, 20, 30, 40))


class Decoder:
    """Gives up dear images until it is told that they are.

    Attributes:
        seen: the images it was asked for, each with whether it was told so.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bool]] = []

    def decode(self, data: bytes) -> Float32Array:
        self.seen.append((data, False))
        if data == DAMAGED:
            raise CorruptImage("it is damaged")
        if data != CHEAP:
            raise ImageTooCostly("it takes too long")
        return echo_input(0.5)

    def decode_dear(self, data: bytes) -> Float32Array:
        self.seen.append((data, True))
        if data == TOO_DEAR:
            raise ImageTooCostly("it takes too long")
        return echo_input(0.5)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


@pytest.fixture
def server(echo_runtime: EchoRuntime, decoder: Decoder) -> Iterator[Server]:
    settings = Settings(workers=2, max_batch=1, max_wait_ms=0)
    worker = LocalWorker(echo_runtime, decoder.decode, prepare_dear=decoder.decode_dear)
    with Server(create_app(settings, local_pool(echo_runtime, worker, as_set(settings)))) as server:
        yield server


def test_image_that_turns_out_to_be_dear_is_run_with_those_that_are(server: Server, decoder: Decoder) -> None:
    assert server.classify(DEAR).status_code == 200
    assert decoder.seen == [(DEAR, False), (DEAR, True)]


def test_image_that_is_too_dear_is_refused_once(server: Server, decoder: Decoder) -> None:
    response = server.classify(TOO_DEAR)
    assert (response.status_code, response.json()["error"]["type"]) == (422, "image_too_costly")
    assert decoder.seen == [(TOO_DEAR, False), (TOO_DEAR, True)]
    assert server.context.counts.images.labels("image_too_costly")._value.get() == 1


def test_images_of_a_batch_keep_their_places(server: Server, decoder: Decoder) -> None:
    results = server.classify_batch([CHEAP, TOO_DEAR, DEAR, DAMAGED]).json()["results"]
    assert [result["error"]["type"] if result.get("error") else "ok" for result in results] == [
        "ok",
        "image_too_costly",
        "ok",
        "corrupt_image",
    ]
    assert sorted(dear for _, dear in decoder.seen) == [False] * 4 + [True] * 2


def test_what_an_image_took_is_learnt(server: Server) -> None:
    costs = server.context.costs
    server.classify(CHEAP)
    assert costs.seconds(costs.kind(CHEAP)) < 0.05
    fresh = type(costs)(1.0)
    assert costs.seconds(costs.kind(CHEAP)) != fresh.seconds(fresh.kind(CHEAP))
