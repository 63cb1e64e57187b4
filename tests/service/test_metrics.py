from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.engine.onnx_runtime import OnnxRuntime
from service.engine.worker import Answer
from service.metrics import Metrics
from tests.image_files import encoded, photograph
from tests.runtimes import echo_manifest
from tests.service.server import Server, serving

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def server(runtime: OnnxRuntime) -> Iterator[Server]:
    """A service that nobody has asked anything yet."""
    with serving(runtime, max_bytes=8000, max_images=10) as server:
        yield server


def _samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def _scrape(server: Server) -> Samples:
    response = server.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return _samples(response.text)


def _value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def _total(samples: Samples, name: str) -> float:
    return sum(value for (sample, _), value in samples.items() if sample == name)


def test_requests_and_images_are_counted_by_outcome(server: Server, pictures: list[bytes]) -> None:
    jpeg = encoded(photograph(50, 40), "JPEG")
    for data in pictures[:4]:
        server.classify(data)
    server.classify(b"")
    server.classify(b"text")
    server.classify(jpeg[:-40])
    server.classify(pictures[0], "?top_k=0")
    server.classify(pictures[0], content_type="text/plain")
    server.classify_batch([*pictures[4:7], b"text", b""])
    server.classify_batch([pictures[0]] * 11)
    server.get("/classify")
    server.get("/healthz")
    for path in ("/admin.php", "/.env", "/wp-login"):
        server.get(path)
    samples = _scrape(server)
    requests = {
        tuple(sorted(dict(labels).items())): value
        for (name, labels), value in samples.items()
        if name == "aig_requests_total"
    }
    expected = {
        ("/classify", "ok"): 4,
        ("/classify", "empty_image"): 1,
        ("/classify", "not_an_image"): 1,
        ("/classify", "corrupt_image"): 1,
        ("/classify", "invalid_parameter"): 1,
        ("/classify", "unsupported_media_type"): 1,
        ("/classify", "method_not_allowed"): 1,
        ("/classify/batch", "ok"): 1,
        ("/classify/batch", "too_many_images"): 1,
        ("/healthz", "ok"): 1,
        ("unmatched", "not_found"): 3,
    }
    assert requests == {(("outcome", o), ("route", r)): count for (r, o), count in expected.items()}
    for route in ("/classify", "/classify/batch", "/healthz", "unmatched"):
        count = sum(number for (of, _), number in expected.items() if of == route)
        assert _value(samples, "aig_request_seconds_count", route=route) == count
        assert _value(samples, "aig_request_seconds_bucket", route=route, le="+Inf") == count
    outcomes = {"ok": 7, "not_an_image": 2, "corrupt_image": 1, "empty_image": 2}
    assert {o: _value(samples, "aig_images_total", outcome=o) for o in outcomes} == outcomes
    assert _total(samples, "aig_images_total") == sum(outcomes.values())


def test_what_was_executed_adds_up_to_what_the_answers_told(
    server: Server, runtime: OnnxRuntime, pictures: list[bytes]
) -> None:
    answers = [server.classify(data).json() for data in pictures[:12]]
    answers += [item["answer"] for item in server.classify_batch(pictures[12:]).json()["results"]]
    samples = _scrape(server)
    executed: Counter[str] = Counter()
    for answer in answers:
        executed.update(run["name"] for run in answer["inference_graph"]["blocks"] if run["executed"])
    assert 0 < min(executed.values()) < max(executed.values()) == 20
    for block in runtime.manifest.blocks:
        labels = {"block": block.name, "stage": str(block.stage)}
        assert _value(samples, "aig_block_executed_total", **labels) == executed[block.name]
        assert _value(samples, "aig_block_gated_total", **labels) == (20 if block.gated else 0)
    assert _value(samples, "aig_macs_sum") == sum(answer["compute"]["macs"] for answer in answers)
    skipped = [answer["layers"]["skipped"] / answer["layers"]["total"] for answer in answers]
    assert _value(samples, "aig_skip_ratio_sum") == pytest.approx(sum(skipped))
    for limit in ("0.0", "0.2", "0.4", "0.6", "1.0"):
        at_most = sum(share <= float(limit) for share in skipped)
        assert _value(samples, "aig_skip_ratio_bucket", le=limit) == at_most
    for name in ("decode_seconds", "queue_seconds", "inference_seconds", "skip_ratio", "macs"):
        assert _value(samples, f"aig_{name}_count") == 20
        assert _value(samples, f"aig_{name}_bucket", le="+Inf") == 20
    assert _value(samples, "aig_batch_size_sum") == 20
    told = sum(answer["timing_ms"]["decode"] for answer in answers) / 1000
    assert _value(samples, "aig_decode_seconds_sum") == pytest.approx(told, abs=1e-4)


def test_gauges_tell_the_state_of_the_service(server: Server, runtime: OnnxRuntime) -> None:
    samples = _scrape(server)
    assert _value(samples, "aig_ready") == 1
    assert _value(samples, "aig_queue_depth") == 0
    total = str(runtime.manifest.total_macs)
    assert _value(samples, "aig_model_info", name="small", version="1", total_macs=total) == 1
    server.context.engine.stop(drain_s=0)
    assert _value(_scrape(server), "aig_ready") == 0


def test_every_block_has_its_series_from_the_start(server: Server, runtime: OnnxRuntime) -> None:
    samples = _scrape(server)
    series = {dict(labels)["block"] for name, labels in samples if name == "aig_block_executed_total"}
    assert series == {block.name for block in runtime.manifest.blocks}
    assert _total(samples, "aig_block_executed_total") == 0
    assert _total(samples, "aig_batch_size_count") == 0  # the warm-up is nobody's image


def test_two_services_in_one_process_count_apart(server: Server, runtime: OnnxRuntime, pictures: list[bytes]) -> None:
    with serving(runtime) as other:
        other.classify(pictures[0])
        assert _value(_scrape(other), "aig_images_total", outcome="ok") == 1
    assert _value(_scrape(server), "aig_images_total", outcome="ok") == 0


@pytest.mark.parametrize("skipped", range(21))
def test_share_skipped_falls_into_the_bucket_of_its_name(skipped: int) -> None:
    block = echo_manifest().blocks[0]
    blocks = tuple(block.model_copy(update={"name": f"block{number}"}) for number in range(20))
    metrics = Metrics(echo_manifest().model_copy(update={"blocks": blocks}))
    answer = Answer(
        logits=np.zeros(3, np.float32),
        margins=np.zeros(0, np.float32),
        executed=np.arange(20) >= skipped,
        macs=1,
        batch_size=1,
        decode_s=0.0,
        queue_s=0.0,
        inference_s=0.0,
    )
    metrics.count_answer(answer)
    samples = _samples(metrics.render().decode())
    assert _value(samples, "aig_skip_ratio_bucket", le=str(skipped / 20)) == 1
    if skipped:
        assert _value(samples, "aig_skip_ratio_bucket", le=str((skipped - 1) / 20)) == 0
