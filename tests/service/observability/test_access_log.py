from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import pngs
from tests.service.server import Server, serving

SECRET = "s3cret"  # pragma: allowlist secret

ACCESS_LOG = "service.observability.access_log"


@pytest.fixture
def server(runtime: OnnxRuntime) -> Iterator[Server]:
    with serving(runtime, access_log="on", max_bytes=8000, max_images=4) as server:
        yield server


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, access lines too."""
    caplog.set_level(logging.INFO, logger=ACCESS_LOG)
    return caplog


def _fields(log: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Of the one access line."""
    (line,) = [record for record in log.records if record.name == ACCESS_LOG]
    return dict(line.fields)


def test_line_of_an_image_tells_what_its_answer_told(
    server: Server, log: pytest.LogCaptureFixture, pictures: list[bytes], runtime: OnnxRuntime
) -> None:
    answer = server.classify(pictures[0]).json()
    fields = _fields(log)
    assert log.messages[-1] == "POST /classify 200"
    assert fields.pop("total_ms") >= answer["timing_ms"]["total"]
    assert fields == {
        "method": "POST",
        "route": "/classify",
        "status": 200,
        "outcome": "ok",
        "received_bytes": len(pictures[0]),
        "images": 1,
        "image_outcomes": {"ok": 1},
        "model": "small",
        "model_version": "1",
        "decode_ms": answer["timing_ms"]["decode"],
        "queue_ms": answer["timing_ms"]["queue"],
        "inference_ms": answer["timing_ms"]["inference"],
        "blocks_executed": answer["layers"]["executed"],
        "blocks_total": len(runtime.manifest.blocks),
        "macs_ratio": round(answer["compute"]["ratio"], 4),
    }


def test_line_of_a_batch_has_the_sums(server: Server, log: pytest.LogCaptureFixture, pictures: list[bytes]) -> None:
    results = server.classify_batch([pictures[0], b"no image", b"", pictures[1]]).json()["results"]
    fields = _fields(log)
    answers = [result["answer"] for result in results if result["answer"]]
    assert (fields["route"], fields["status"], fields["outcome"]) == ("/classify/batch", 200, "ok")
    assert (fields["images"], fields["image_outcomes"]) == (4, {"ok": 2, "not_an_image": 1, "empty_image": 1})
    for stage in ("decode", "queue", "inference"):
        assert fields[f"{stage}_ms"] == pytest.approx(sum(a["timing_ms"][stage] for a in answers), abs=0.002)
    assert fields["blocks_executed"] == sum(answer["layers"]["executed"] for answer in answers)
    assert fields["blocks_total"] == sum(answer["layers"]["total"] for answer in answers)
    assert fields["macs_ratio"] == pytest.approx(sum(a["compute"]["ratio"] for a in answers) / 2, abs=1e-4)
    assert fields["received_bytes"] > len(pictures[0]) + len(pictures[1])


@pytest.mark.parametrize(
    ("path", "body", "status", "outcome", "images"),
    [
        ("/classify", b"no image", 415, "not_an_image", {"not_an_image": 1}),
        ("/classify", bytes(9000), 413, "image_too_large", None),
        ("/classify?top_k=0", b"x", 422, "invalid_parameter", None),
        ("/classify/batch", b"x", 415, "unsupported_media_type", None),
        ("/healthz", b"", 405, "method_not_allowed", None),
    ],
)
def test_line_of_a_refusal_tells_why(
    server: Server,
    log: pytest.LogCaptureFixture,
    path: str,
    body: bytes,
    status: int,
    outcome: str,
    images: dict[str, int] | None,
) -> None:
    server.post(path, content=body)
    fields = _fields(log)
    assert (fields["status"], fields["outcome"], fields.get("image_outcomes")) == (status, outcome, images)
    assert fields["route"] == path.partition("?")[0]
    assert fields.get("model") == ("small" if path.startswith("/classify") else None)


def test_nothing_that_was_sent_is_in_a_line(server: Server, log: pytest.LogCaptureFixture) -> None:
    headers = {"Authorization": SECRET, "X-API-Key": SECRET, "X-Request-ID": f"{SECRET} {SECRET}", "User-Agent": SECRET}
    for path in ("/classify?graph=none", f"/classify?api_key={SECRET}", f"/{SECRET}%0A{SECRET}", f"/classify/{SECRET}"):
        server.post(path, files={"file": (SECRET, pngs(1)[0] + SECRET.encode())}, headers=headers)
    server.post("/classify/batch", files=[("files", (SECRET, SECRET.encode()))], headers=headers)
    server.post("/classify", content=SECRET.encode(), headers={**headers, "content-type": f"image/{SECRET}"})
    written = [repr((line.getMessage(), line.fields)) for line in log.records if line.name == ACCESS_LOG]
    assert len(written) == 6
    assert not [line for line in written if SECRET in line]


def test_without_the_setting_there_are_no_lines(
    runtime: OnnxRuntime, pictures: list[bytes], log: pytest.LogCaptureFixture
) -> None:
    with serving(runtime) as server:
        server.classify(pictures[0])
    assert [record for record in log.records if record.name == ACCESS_LOG] == []
