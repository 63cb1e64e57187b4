from __future__ import annotations

import math
from dataclasses import asdict, replace

import httpx
import numpy as np
import pytest
from pydantic import TypeAdapter

from service.classify.schemas import Classification
from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import encoded, photograph
from tests.service.conftest import Outcome
from tests.service.server import Server


def _checked(response: httpx.Response) -> Classification:
    """The answer, after checking that it has exactly the documented fields."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    answer = TypeAdapter(Classification).validate_python(response.json(), extra="forbid")
    assert asdict(answer) == response.json()
    return answer


def test_pictures_of_these_tests_take_many_paths(pictures: list[bytes], outcome: Outcome) -> None:
    executed = np.stack([outcome(data)[2] for data in pictures])
    assert len(np.unique(executed, axis=0)) >= 5
    assert min(np.abs(outcome(data)[1]).min() for data in pictures) > 1e-3


def test_file_field_and_raw_body_give_the_same_answer(server: Server, pictures: list[bytes]) -> None:
    raw, form = server.classify(pictures[0]), server.classify_file(pictures[0])
    timing = _checked(raw).timing_ms
    assert replace(_checked(raw), timing_ms=timing) == replace(_checked(form), timing_ms=timing)


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "image/jpeg",  # the bytes decide, not the claim
        "IMAGE/PNG; some=parameter",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # what curl --data-binary says
        "",
    ],
)
def test_raw_body_is_taken_as(server: Server, pictures: list[bytes], content_type: str) -> None:
    expected = _checked(server.classify(pictures[0])).predictions
    assert _checked(server.classify(pictures[0], content_type=content_type)).predictions == expected


def test_raw_body_needs_no_content_type(server: Server, pictures: list[bytes]) -> None:
    response = server.post("/classify", content=pictures[0])
    assert "content-type" not in response.request.headers
    assert _checked(response).predictions == _checked(server.classify(pictures[0])).predictions


def test_content_type_of_a_form_may_be_written_in_capitals(server: Server, pictures: list[bytes]) -> None:
    body = (
        b'--Edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + pictures[0]
        + b"\r\n--Edge--\r\n"
    )
    response = server.classify(body, content_type="Multipart/Form-Data; Boundary=Edge")
    assert _checked(response).predictions == _checked(server.classify(pictures[0])).predictions


def test_raw_body_may_come_in_chunks_of_unknown_length(server: Server, pictures: list[bytes]) -> None:
    async def chunks() -> object:
        for start in range(0, len(pictures[0]), 50):
            yield pictures[0][start : start + 50]

    response = server.post("/classify", content=chunks(), headers={"content-type": "image/png"})
    assert "content-length" not in response.request.headers
    assert _checked(response).predictions == _checked(server.classify(pictures[0])).predictions


def test_predictions_are_the_softmax_of_the_logits_best_first(
    server: Server, runtime: OnnxRuntime, pictures: list[bytes], outcome: Outcome
) -> None:
    labels = runtime.manifest.labels
    for data in pictures:
        logits = outcome(data)[0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        predictions = _checked(server.classify(data)).predictions
        assert [guess.index for guess in predictions] == np.argsort(-probabilities)[:5].tolist()
        assert [guess.label for guess in predictions] == [labels[guess.index] for guess in predictions]
        for guess in predictions:
            assert guess.probability == pytest.approx(probabilities[guess.index], rel=1e-4)


def test_graph_tells_what_every_gate_said(
    server: Server, runtime: OnnxRuntime, pictures: list[bytes], outcome: Outcome
) -> None:
    for data in pictures:
        _, margins, executed = outcome(data)
        answer = _checked(server.classify(data))
        assert answer.inference_graph is not None
        blocks = answer.inference_graph.blocks
        assert [(run["name"], run["stage"], run["gated"], run["macs"]) for run in blocks] == [
            (block.name, block.stage, block.gated, block.macs) for block in runtime.manifest.blocks
        ]
        assert [run["executed"] for run in blocks] == executed.tolist()
        assert (blocks[0]["margin"], blocks[0]["gate_probability"]) == (None, None)
        for run, margin in zip(blocks[1:], margins.tolist(), strict=True):
            assert run["margin"] == pytest.approx(margin, abs=1e-5)
            assert run["gate_probability"] == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-5)
            assert run["executed"] == (run["margin"] > 0) == (run["gate_probability"] > 0.5)


def test_edges_are_one_way_from_the_input_to_the_classifier(server: Server, pictures: list[bytes]) -> None:
    for data in pictures:
        graph = _checked(server.classify(data)).inference_graph
        assert graph is not None
        expected = ["input", "stem"]
        for run in graph.blocks:
            if run["executed"]:
                expected.append(run["name"])
            elif run["name"] in ("stage2_block1", "stage3_block1"):
                expected.append(f"{run['name']}.shortcut")
        expected.append("classifier")
        assert [edge["source"] for edge in graph.edges] == expected[:-1]
        assert [edge["target"] for edge in graph.edges] == expected[1:]


def test_layers_count_and_name_what_was_skipped(server: Server, pictures: list[bytes]) -> None:
    skipped_counts = set()
    for data in pictures:
        answer = _checked(server.classify(data))
        assert answer.inference_graph is not None
        assert answer.layers is not None
        skipped = [run["name"] for run in answer.inference_graph.blocks if not run["executed"]]
        assert answer.layers.skipped_names == skipped
        assert (answer.layers.skipped, answer.layers.executed, answer.layers.total) == (
            len(skipped),
            5 - len(skipped),
            5,
        )
        skipped_counts.add(len(skipped))
    assert len(skipped_counts) > 1


def test_compute_is_what_the_executed_blocks_cost(
    server: Server, runtime: OnnxRuntime, pictures: list[bytes], outcome: Outcome
) -> None:
    manifest = runtime.manifest
    always = manifest.stem_macs + manifest.classifier_macs
    always += sum(block.shortcut_macs + block.gate_macs for block in manifest.blocks)
    for data in pictures:
        executed = outcome(data)[2]
        spent = always + sum(block.macs for block, ran in zip(manifest.blocks, executed, strict=True) if ran)
        compute = _checked(server.classify(data)).compute
        assert (compute.macs, compute.total_macs) == (spent, manifest.total_macs)
        assert compute.ratio == spent / manifest.total_macs


def test_graph_parameter_says_how_much_of_the_path_is_told(server: Server, pictures: list[bytes]) -> None:
    full = _checked(server.classify(pictures[0], "?graph=full"))
    summary = _checked(server.classify(pictures[0], "?graph=summary"))
    nothing = _checked(server.classify(pictures[0], "?graph=none"))
    assert _checked(server.classify(pictures[0])).inference_graph == full.inference_graph
    assert full.inference_graph is not None
    assert (summary.inference_graph, summary.layers) == (None, full.layers)
    assert (nothing.inference_graph, nothing.layers) == (None, None)
    assert full.predictions == summary.predictions == nothing.predictions
    assert full.compute == summary.compute == nothing.compute


@pytest.mark.parametrize(("query", "count"), [("", 5), ("?top_k=1", 1), ("?top_k=6", 6), ("?top_k=1000", 6)])
def test_top_k_says_how_many_predictions_are_told(
    server: Server, pictures: list[bytes], query: str, count: int
) -> None:
    every = _checked(server.classify(pictures[0], "?top_k=6")).predictions
    assert _checked(server.classify(pictures[0], query)).predictions == every[:count]
    assert sum(guess.probability for guess in every) == pytest.approx(1)


def test_answer_names_its_model_and_its_times(server: Server, pictures: list[bytes]) -> None:
    answer = _checked(server.classify(pictures[0]))
    assert (answer.model.name, answer.model.version) == ("small", "1")
    times = answer.timing_ms
    assert min(times.decode, times.queue, times.inference) >= 0
    # Each is rounded to a microsecond.
    assert times.total + 0.002 >= times.decode + times.queue + times.inference > 0


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 31), (100, 20), (1, 1), (40, 2)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP"])
def test_image_of_any_size_and_format_is_classified(
    server: Server, outcome: Outcome, width: int, height: int, format_: str
) -> None:
    data = encoded(photograph(width, height), format_)
    guesses = _checked(server.classify(data)).predictions
    assert guesses[0].index == int(outcome(data)[0].argmax())
