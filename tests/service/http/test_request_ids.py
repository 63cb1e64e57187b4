from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.engine.runtimes.onnx import OnnxRuntime
from service.http.request_ids import request_id
from tests.service.server import Server, serving

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize(
    "given",
    [
        b"a",
        b"7f1d6a52-6d0b-4b0f-9d61-0f6f4f3c2f11",
        b"Root=1-67891233-abcdef012345678912345678",  # a load balancer's
        b"105445aa7843bc8bf206b12000100000/1;o=1",  # another's
        b"user@host:~a.b_c+d/e==",
        b"x" * 128,
    ],
)
def test_id_of_the_client_is_taken(given: bytes) -> None:
    assert request_id([(b"host", b"h"), (b"x-request-id", given), (b"accept", b"*/*")]) == given.decode()


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"x" * 129,
        b"two words",
        b"tab\there",
        b"line\nINFO: forged",
        b"end\n",
        b"return\rINFO: forged",
        b"\x1b[31mred",
        b'quote"',
        b"back\\slash",
        b"<script>",
        "é".encode(),
        "é".encode("latin-1"),
        b"\x85",
        b"\xe2\x80\xa8",
        b"\0",
    ],
)
def test_id_that_is_not_safe_to_repeat_is_replaced(given: bytes) -> None:
    assert MADE.fullmatch(request_id([(b"x-request-id", given)]))


def test_of_several_ids_the_first_counts() -> None:
    assert request_id([(b"x-request-id", b"one"), (b"x-request-id", b"two")]) == "one"
    assert MADE.fullmatch(request_id([(b"x-request-id", b"n o"), (b"x-request-id", b"two")]))


def test_ids_that_are_made_differ() -> None:
    made = {request_id([(b"host", b"h")]) for _ in range(1000)}
    assert len(made) == 1000
    assert all(MADE.fullmatch(each) for each in made)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/healthz", 200),
        ("get", "/readyz", 200),
        ("get", "/model", 200),
        ("get", "/metrics", 200),
        ("get", "/docs", 200),
        ("get", "/openapi.json", 200),
        ("get", "/nothing/here", 404),
        ("get", "/classify", 405),
        ("post", "/healthz", 405),
        ("post", "/classify", 400),
        ("post", "/classify?colour=red", 422),
        ("post", "/classify/batch", 415),
    ],
)
def test_every_answer_has_the_id(server: Server, method: str, path: str, status: int) -> None:
    ask = getattr(server, method)
    given = ask(path, headers={"X-Request-ID": "mine-1"})
    assert (given.status_code, given.headers.get_list("x-request-id")) == (status, ["mine-1"])
    made = ask(path)
    assert MADE.fullmatch(made.headers["x-request-id"])
    for response in (given, made):
        if status >= 400:
            assert response.json()["error"]["request_id"] == response.headers["x-request-id"]


def test_classified_images_have_the_id(server: Server, pictures: list[bytes]) -> None:
    headers = {"X-Request-ID": "mine-2"}
    one = server.post("/classify", content=pictures[0], headers=headers)
    several = server.post("/classify/batch", files=[("files", ("a", pictures[0]))], headers=headers)
    for response in (one, several):
        assert (response.status_code, response.headers["x-request-id"]) == (200, "mine-2")


def test_error_nobody_expected_has_the_id_wherever_it_happens(
    runtime: OnnxRuntime, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a secret")

    with serving(runtime) as server:
        monkeypatch.setattr(server.context.engine, "submit", fail)
        monkeypatch.setattr("service.http.model_routes.ModelDescription", fail)
        for response in (server.classify(pictures[0]), server.get("/model")):
            assert response.status_code == 500
            error = response.json()["error"]
            assert (error["type"], error["request_id"]) == ("internal_error", response.headers["x-request-id"])
            assert "secret" not in response.text
    assert [record.name for record in caplog.records if record.exc_info] == ["service.errors"] * 2  # once each
    assert 'aig_requests_total{outcome="internal_error",route="/model"} 1.0' in server.context.metrics.render().decode()


def test_requests_at_the_same_time_keep_their_ids(server: Server) -> None:
    def ask(number: int) -> tuple[str, str]:
        response = server.post(f"/classify?unknown={number}", headers={"X-Request-ID": f"id-{number}"})
        return response.headers["x-request-id"], response.json()["error"]["request_id"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    assert answers == [(f"id-{number}", f"id-{number}") for number in range(40)]


def test_openapi_tells_of_the_id(server: Server) -> None:
    described = server.get("/openapi.json").json()
    error = described["components"]["schemas"]["RequestErrorDetail"]
    assert set(error["required"]) == {"type", "message", "request_id"}
    assert set(described["components"]["schemas"]["ErrorDetail"]["required"]) == {"type", "message"}  # of one image
    for path in ("/classify", "/classify/batch"):
        for answer in described["paths"][path]["post"]["responses"].values():
            assert "X-Request-ID" in answer["headers"]
