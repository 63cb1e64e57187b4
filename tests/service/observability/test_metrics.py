from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest

from artifact.manifest import ExecutionProfile, Manifest
from service.engine.job import Answer
from service.engine.runtimes.onnx import OnnxRuntime
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from tests.image_files import encoded, photograph
from tests.runtimes import echo_manifest
from tests.service.server import Server, serving
from tests.told_metrics import Samples, told


@pytest.fixture
def server(runtime: OnnxRuntime) -> Iterator[Server]:
    """A service that nobody has asked anything yet."""
    with serving(runtime, max_bytes=8000, max_images=10) as server:
        yield server


def _of_model(manifest: Manifest) -> tuple[ModelMetrics, Callable[[], Samples]]:
    """The metrics of a model, and what is told of them."""
    metrics, of_model = Metrics(), ModelMetrics(manifest)
    metrics.show(of_model)
    return of_model, lambda: told(metrics.render().decode())


def _scrape(server: Server) -> Samples:
    response = server.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return told(response.text)


def _value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def _total(samples: Samples, name: str) -> float:
    return sum(value for (sample, _), value in samples.items() if sample == name)


def _answer(executed: Iterable[bool], macs: int = 1, inference_s: float = 0.0) -> Answer:
    return Answer(
        logits=(0.0, 0.0, 0.0),
        margins=(),
        executed=tuple(executed),
        macs=macs,
        batch_size=1,
        decode_s=0.0,
        queue_s=0.0,
        inference_s=inference_s,
    )


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
        if name == "aig_requests_total" and value
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
    spent = [answer["compute"]["macs"] for answer in answers]
    assert _value(samples, "aig_macs_sum") == sum(spent)
    saved = sum(max(0, runtime.manifest.ungated_macs - macs) for macs in spent)
    assert _value(samples, "aig_macs_saved_total") == saved > 0
    skipped = [answer["layers"]["skipped"] / answer["layers"]["total"] for answer in answers]
    assert _value(samples, "aig_skip_ratio_sum") == pytest.approx(sum(skipped))
    for limit in ("0.0", "0.2", "0.4", "0.6", "1.0"):
        at_most = sum(share <= float(limit) for share in skipped)
        assert _value(samples, "aig_skip_ratio_bucket", le=limit) == at_most
    for name in ("decode_seconds", "queue_seconds", "inference_seconds", "skip_ratio", "macs"):
        assert _value(samples, f"aig_{name}_count") == 20
        assert _value(samples, f"aig_{name}_bucket", le="+Inf") == 20
    assert _value(samples, "aig_batch_size_sum") == 20
    decoded_s = sum(answer["timing_ms"]["decode"] for answer in answers) / 1000
    assert _value(samples, "aig_decode_seconds_sum") == pytest.approx(decoded_s, abs=1e-4)


def test_gauges_tell_the_state_of_the_service(server: Server, runtime: OnnxRuntime) -> None:
    samples = _scrape(server)
    assert _value(samples, "aig_ready") == 1
    assert _value(samples, "aig_queue_depth") == 0
    assert _value(samples, "aig_queue_capacity") == server.context.settings.queue_size
    total, ungated = str(runtime.manifest.total_macs), str(runtime.manifest.ungated_macs)
    facts = {"total_macs": total, "ungated_macs": ungated, "blocks": "5"}
    assert _value(samples, "aig_model_info", **facts) == 1
    server.wait_for(server.context.engine.crew.stop(drain_s=0))
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


def test_classes_and_numbers_of_blocks_add_up_to_what_the_answers_told(
    server: Server, runtime: OnnxRuntime, pictures: list[bytes]
) -> None:
    answers = [server.classify(data).json() for data in pictures]
    samples = _scrape(server)
    images, blocks, by_number = Counter[str](), Counter[str](), Counter[int]()
    for answer in answers:
        executed = answer["layers"]["executed"]
        images[answer["predictions"][0]["label"]] += 1
        blocks[answer["predictions"][0]["label"]] += executed
        by_number[executed] += 1
    assert len(images) > 1
    assert len(by_number) > 2
    for label in runtime.manifest.labels:
        assert _value(samples, "aig_class_images_total", label=label) == images[label]
        assert _value(samples, "aig_class_blocks_executed_total", label=label) == blocks[label]
    name = "aig_executed_blocks_inference_seconds"
    for number in range(1, 6):
        assert _value(samples, f"{name}_count", blocks=str(number)) == by_number[number]
        assert (_value(samples, f"{name}_sum", blocks=str(number)) > 0) == (number in by_number)
    seconds = _value(samples, "aig_inference_seconds_sum")
    assert _total(samples, f"{name}_sum") == pytest.approx(seconds)


def test_every_class_and_every_possible_number_of_blocks_has_its_series_from_the_start() -> None:
    samples = _of_model(echo_manifest())[1]()
    every = {
        name: sorted(value for sample, labels in samples if sample == name for _, value in labels)
        for name in ("aig_class_images_total", "aig_class_blocks_executed_total")
    }
    classes = ["class 0", "class 1", "class 2"]
    assert every == {"aig_class_images_total": classes, "aig_class_blocks_executed_total": classes}
    name = "aig_executed_blocks_inference_seconds_count"
    # The first of the three blocks has no gate, so one always runs.
    assert sorted(dict(labels)["blocks"] for sample, labels in samples if sample == name) == ["1", "2", "3"]
    assert _total(samples, name) == 0


def test_inference_time_is_told_by_the_number_of_blocks_that_ran() -> None:
    metrics, tell = _of_model(echo_manifest())
    for executed, inference_s in ((1, 0.25), (3, 0.5), (3, 2.0)):
        metrics.count_answer(_answer((block < executed for block in range(3)), inference_s=inference_s))
    samples = tell()
    name = "aig_executed_blocks_inference_seconds"
    assert [_value(samples, f"{name}_sum", blocks=str(number)) for number in (1, 2, 3)] == [0.25, 0, 2.5]
    assert [_value(samples, f"{name}_count", blocks=str(number)) for number in (1, 2, 3)] == [1, 0, 2]


def test_gates_that_cost_more_than_they_saved_take_nothing_from_the_macs_saved() -> None:
    metrics, tell = _of_model(echo_manifest())
    for macs in (600, 618, 615, 115):  # 615 without gates
        metrics.count_answer(_answer((True, True, True), macs=macs))
    assert _value(tell(), "aig_macs_saved_total") == 15 + 500


def test_profile_at_export_is_told_for_the_gated_blocks() -> None:
    profile = ExecutionProfile(images=200, rates=(1.0, 0.25, 0.625))
    samples = _of_model(echo_manifest().model_copy(update={"profile": profile}))[1]()
    expected = {labels: value for (name, labels), value in samples.items() if "expected_execution" in name}
    assert {tuple(sorted(labels)): value for labels, value in expected.items()} == {
        (("block", "block2"), ("stage", "1")): 0.25,
        (("block", "block3"), ("stage", "1")): 0.625,
    }
    # By hand: of 618 MACs, three quarters of the second block's 200 and three eighths of the third's 300 are saved.
    assert _value(samples, "aig_expected_macs") == 618 - 150 - 112.5


def test_profile_of_the_model_that_is_served_is_told(server: Server, runtime: OnnxRuntime) -> None:
    described, profile = server.get("/model").json(), runtime.manifest.profile
    assert profile is not None
    assert described["profile"] == {"images": 100, "rates": list(profile.rates)}
    samples = _scrape(server)
    for block, rate in zip(runtime.manifest.blocks[1:], profile.rates[1:], strict=True):
        labels = {"block": block.name, "stage": str(block.stage)}
        assert _value(samples, "aig_block_expected_execution_rate", **labels) == rate > 0


def test_model_without_a_profile_tells_no_expectation() -> None:
    metrics = Metrics()
    metrics.show(ModelMetrics(echo_manifest()))
    text = metrics.render().decode()
    assert "aig_model_info" in text
    assert "expected" not in text


def test_faults_and_refusals_are_told_before_the_first_of_them(server: Server) -> None:
    samples = _scrape(server)
    for outcome in ("overloaded", "inference_failed", "stopping", "worker_lost", "deadline_exceeded", "internal_error"):
        assert samples["aig_images_total", frozenset({("outcome", outcome)})] == 0
        for route in ("/classify", "/classify/batch"):
            assert samples["aig_requests_total", frozenset({("outcome", outcome), ("route", route)})] == 0
    assert ("aig_images_total", frozenset({("outcome", "empty_image")})) not in samples  # a client's fault


@pytest.mark.parametrize("skipped", range(21))
def test_share_skipped_falls_into_the_bucket_of_its_name(skipped: int) -> None:
    block = echo_manifest().blocks[0]
    blocks = tuple(block.model_copy(update={"name": f"block{number}"}) for number in range(20))
    metrics, tell = _of_model(echo_manifest().model_copy(update={"blocks": blocks}))
    metrics.count_answer(_answer(block >= skipped for block in range(20)))
    samples = tell()
    assert _value(samples, "aig_skip_ratio_bucket", le=str(skipped / 20)) == 1
    if skipped:
        assert _value(samples, "aig_skip_ratio_bucket", le=str((skipped - 1) / 20)) == 0


def test_what_is_of_a_model_says_of_which_and_goes_with_it() -> None:
    metrics, other = Metrics(), echo_manifest().model_copy(update={"name": "other", "version": "7"})
    of_models = [ModelMetrics(manifest) for manifest in (echo_manifest(), other)]
    for each in of_models:
        metrics.show(each)
        each.count_answer(_answer((True, False, True)))
    series = 'aig_images_total{model="other",outcome="ok",version="7"} 1.0'
    text = metrics.render().decode()
    assert series in text
    assert text.count("# TYPE aig_images_total") == 1
    metrics.hide(of_models[1])
    text = metrics.render().decode()
    assert "other" not in text
    assert 'outcome="ok"' in text
