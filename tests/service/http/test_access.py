"""A service with API keys, attacked from outside."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.access.keys import ApiKey, Keyring
from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import pngs, solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.server import Server, serving

SOUND = pngs(1)[0]
HELD_BACK = {"expect": "100-continue"}  # until the server asks for the body
PNG = {"content-type": "image/png"}
ACCESS_LOG = "service.observability.access_log"


def _key(name: str, **limits: object) -> ApiKey:
    """A key that is its name, backwards."""
    return ApiKey.model_validate({"name": name, "sha256": hashlib.sha256(name[::-1].encode()).hexdigest()} | limits)


def _as(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name[::-1]}"}


def _classify(server: Server, name: str, images: int = 1) -> httpx.Response:
    if images == 1:
        return server.post("/classify", content=SOUND, headers=PNG | _as(name))
    files = [("files", ("a.png", SOUND))] * images
    return server.post("/classify/batch", files=files, headers=_as(name))


def _samples(server: Server) -> dict[tuple[str, ...], float]:
    text = server.get("/metrics", headers=_as("prometheus")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "key" in sample.labels
    }


KEYS = Keyring([_key("alice"), _key("carol"), _key("prometheus", metrics=True)])


@pytest.fixture
def server(runtime: OnnxRuntime) -> Iterator[Server]:
    with serving(runtime, KEYS, max_bytes=8000) as server:
        yield server


@pytest.fixture(scope="module")
def shared(runtime: OnnxRuntime) -> Iterator[Server]:
    """The same for tests that leave nothing behind but counts."""
    with serving(runtime, KEYS, max_bytes=8000) as server:
        yield server


def _assert_refused(response: httpx.Response, status: int, type_: str) -> None:
    assert (response.status_code, response.json()["error"]["type"]) == (status, type_), response.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer alice"},
        {"Authorization": "Basic ecila"},
        {"Authorization": "ecila"},
        {"X-API-Key": ""},
        {"X-API-Key": "alice"},
        {"X-API-Key": KEYS.keys[0].sha256},
        {"X-API-Key": b"\xff\xfe"},
        {"Authorization": "Bearer wrong", "X-API-Key": "ecila"},
        {"Cookie": "api_key=ecila"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/classify"),
        ("POST", "/classify/batch"),
        ("GET", "/model"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("GET", "/model?api_key=ecila"),
        ("GET", "/healthz/../model"),
        ("GET", "/docs/../model"),
        ("GET", "/healthz/"),
        ("OPTIONS", "/classify"),
    ],
)
def test_nobody_without_a_key_gets_anywhere(shared: Server, headers: dict[str, str], method: str, path: str) -> None:
    response = shared.request(method, path, headers=headers)
    _assert_refused(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/static-offline-docs/../model", "/ui/../model", "/ui//model", "/docs/oauth2-redirect"]
)
def test_open_path_leads_nowhere_else(server: Server, path: str) -> None:
    told = b""

    async def note(message: dict[str, Any]) -> None:
        nonlocal told
        told += message.get("body", b"")

    # Not through the client, which tidies paths up.
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "root_path": ""}
    server.wait_for(server.app(scope, None, note))
    assert b"not_found" in told or b"oauth2" in told
    assert b"labels" not in told


@pytest.mark.parametrize("header", [_as("alice"), {"authorization": "bearer  ecila "}, {"X-API-Key": "ecila"}])
def test_key_opens_everything_but_metrics(server: Server, header: dict[str, str]) -> None:
    assert server.post("/classify", content=SOUND, headers=PNG | header).status_code == 200
    assert server.get("/model", headers=header).status_code == 200
    _assert_refused(server.get("/nowhere", headers=header), 404, "not_found")
    _assert_refused(server.get("/metrics", headers=header), 403, "forbidden")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_health_and_documentation_need_no_key(server: Server, path: str) -> None:
    assert server.get(path).status_code == 200


def test_metrics_tell_what_each_key_did_and_no_key(server: Server, runtime: OnnxRuntime) -> None:
    macs = [_classify(server, "alice").json()["compute"]["macs"] for _ in range(2)]
    batch = _classify(server, "carol", 3).json()["results"]
    server.post("/classify", content=b"text", headers=PNG | _as("carol"))
    _classify(server, "nobody")
    samples = _samples(server)
    expected = {
        ("aig_key_requests_total", "alice", "ok"): 2,
        ("aig_key_requests_total", "carol", "ok"): 1,
        ("aig_key_requests_total", "carol", "not_an_image"): 1,
        ("aig_key_images_total", "alice", "small"): 2,
        ("aig_key_images_total", "carol", "small"): 3,
        ("aig_key_macs_total", "alice", "small"): sum(macs),
        ("aig_key_macs_total", "carol", "small"): sum(item["answer"]["compute"]["macs"] for item in batch),
        ("aig_key_mac_share_count", "carol", "small"): 3,
        ("aig_key_mac_share_sum", "alice", "small"): pytest.approx(sum(macs) / runtime.manifest.total_macs),
    }
    assert {name: samples.get(name) for name in expected} == expected
    names = {"alice", "carol"}  # the others have done nothing
    assert {labels[1] for labels in samples} == names
    text = server.get("/metrics", headers=_as("prometheus")).text
    assert not [key for key in KEYS.keys if key.sha256 in text or key.name[::-1] in text]


def test_no_key_is_ever_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _classify(server, "alice")
        _classify(server, "a-wrong-key")
        server.post("/classify", content=b"text", headers=PNG | _as("carol"))
    assert not [key for key in ("ecila", "yek-gnorw-a", "lorac") if key in caplog.text]


def test_each_key_has_a_rate_of_its_own(runtime: OnnxRuntime) -> None:
    keys = [_key("slow", images_per_second=0.001, burst_images=5), _key("alice"), _key("prometheus", metrics=True)]
    with serving(runtime, Keyring(keys), max_images=10) as server:
        assert _classify(server, "slow", 4).status_code == 200
        refused = _classify(server, "slow", 2)
        _assert_refused(refused, 429, "rate_limited")
        assert refused.headers["retry-after"] == "1000"
        assert _classify(server, "slow").status_code == 200
        _assert_refused(_classify(server, "slow"), 429, "rate_limited")
        assert server.get("/model", headers=_as("slow")).status_code == 200
        assert _classify(server, "alice").status_code == 200
        assert _samples(server)["aig_key_requests_total", "slow", "rate_limited"] == 2


def test_key_that_is_over_its_rate_is_told_before_it_has_sent_its_image(runtime: OnnxRuntime) -> None:
    with serving(runtime, Keyring([_key("slow", images_per_second=0.001)])) as server:
        _classify(server, "slow")
        sent = []

        async def body() -> object:
            sent.append(1)
            yield SOUND

        _assert_refused(
            server.post("/classify", content=body(), headers=HELD_BACK | PNG | _as("slow")), 429, "rate_limited"
        )
        assert sent == []


def test_key_has_only_so_many_requests_in_progress(echo_runtime: EchoRuntime) -> None:
    keys = [_key("two", requests_at_once=2), _key("alice"), _key("prometheus", metrics=True)]
    with serving(echo_runtime, Keyring(keys), max_batch=1) as server:
        echo_runtime.hold()
        held = [server.begin("POST", "/classify", content=solid(1), headers=PNG | _as("two")) for _ in range(2)]
        echo_runtime.wait_until_running(2)
        refused = server.post("/classify", content=solid(1), headers=PNG | _as("two"))
        _assert_refused(refused, 429, "too_many_requests_at_once")
        assert refused.headers["retry-after"] == "1"
        other = server.begin("POST", "/classify", content=solid(1), headers=PNG | _as("alice"))
        echo_runtime.release()
        assert [answer.result().status_code for answer in [*held, other]] == [200] * 3
        assert server.post("/classify", content=solid(1), headers=PNG | _as("two")).status_code == 200


def test_images_that_open_every_gate_use_up_a_quota(runtime: OnnxRuntime) -> None:
    macs = 2 * runtime.manifest.total_macs
    keys = [_key("small", macs_per_window=macs, window_seconds=1e6), _key("alice")]
    with serving(runtime, Keyring(keys)) as server:
        answers = [_classify(server, "small") for _ in range(20)]
        spent = [answer.json()["compute"]["macs"] for answer in answers if answer.status_code == 200]
        assert sum(spent[:-1]) < macs  # and the time of decoding counts as well
        refused = answers[len(spent) :]
        assert refused
        for answer in refused:
            _assert_refused(answer, 429, "quota_exceeded")
            assert int(answer.headers["retry-after"]) >= 1
        assert _classify(server, "alice").status_code == 200


def test_client_that_leaves_is_charged_for_what_it_started(echo_runtime: EchoRuntime) -> None:
    keys = [_key("gone", macs_per_window=1, window_seconds=1e6), _key("prometheus", metrics=True)]
    with serving(echo_runtime, Keyring(keys), deadline_ms=2000) as server:
        echo_runtime.hold()
        # Its deadline passes while it runs, so nobody waits for its answer any more.
        assert server.post("/classify", content=solid(1), headers=PNG | _as("gone")).status_code == 504
        echo_runtime.release()
        wait_until(lambda: _samples(server).get(("aig_key_macs_total", "gone", "echo"), 0) > 0)
        _assert_refused(server.post("/classify", content=solid(1), headers=PNG | _as("gone")), 429, "quota_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [("POST", "/classify", "/classify"), ("GET", "/metrics", "/metrics"), ("GET", "/nowhere", "unmatched")],
)
def test_refusal_is_logged_and_counted_under_its_route(
    runtime: OnnxRuntime, caplog: pytest.LogCaptureFixture, method: str, path: str, route: str
) -> None:
    with serving(runtime, KEYS, access_log="on") as server, caplog.at_level(logging.INFO, logger=ACCESS_LOG):
        server.request(method, path)
        (line,) = [record for record in caplog.records if record.name == ACCESS_LOG]
        assert (line.fields["route"], line.fields["status"], line.fields["outcome"]) == (route, 401, "unauthorized")
        assert "key" not in line.fields
        metrics = server.get("/metrics", headers=_as("prometheus")).text
        assert f'aig_requests_total{{outcome="unauthorized",route="{route}"}} 1.0' in metrics


def test_line_of_a_request_names_its_key_and_never_tells_it(
    runtime: OnnxRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(runtime, KEYS, access_log="on") as server, caplog.at_level(logging.INFO, logger=ACCESS_LOG):
        _classify(server, "alice")
        _classify(server, "carol", 2)
        server.get("/metrics", headers=_as("alice"))
    lines = [record for record in caplog.records if record.name == ACCESS_LOG]
    assert [line.fields.get("key") for line in lines] == ["alice", "carol", "alice"]
    assert "ecila" not in repr([line.__dict__ for line in lines])


def test_without_keys_nobody_has_limits_nor_metrics_of_keys(runtime: OnnxRuntime) -> None:
    with serving(runtime) as server:
        assert server.classify(SOUND).status_code == 200
        assert "aig_key" not in server.get("/metrics").text


def test_key_for_other_models_is_refused_before_its_body_is_received(runtime: OnnxRuntime) -> None:
    keys = Keyring([_key("mine", models=["small"]), _key("other", models=["large"])])
    with serving(runtime, keys) as server:
        assert server.post("/classify", content=SOUND, headers=PNG | _as("mine")).status_code == 200
        for path in ("/classify", "/models/small/classify", "/models/small/versions/1/classify/batch"):
            _assert_refused(server.post(path, content=SOUND, headers=PNG | _as("other")), 403, "model_not_allowed")
        answer = server.post("/v2/models/small/infer", content=b"{}", headers=_as("other"))
        assert (answer.status_code, answer.json()["error"]) == (403, "this key is not for the model small")
