"""What the documents show, compared with what a newcomer sees who does the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import orjson
import pyarrow.dataset as ds
import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs.hooks.http_reference import routes
from docs.hooks.tables import metrics
from service.__main__ import main
from service.classify.budgets import AS_TRAINED
from service.classify.graph import describe
from service.dataset.files import IMAGE_SUFFIXES
from service.engine.runtimes.selection import open_runtime
from service.engine.workers.local import LocalWorker
from service.images.decoding import ImageDecoder
from service.settings import Settings
from tests.e2e.process import ROOT, ServerProcess
from tests.service.engine.workers.processes import job

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def _shown(before: str) -> str:
    """The second block after these words: what the command in the first one prints."""
    return TUTORIAL.split(before, 1)[1].split("```", 4)[3]


def _close(value: Any) -> Any:
    """Equal to what differs only in digits that are not shown."""
    if isinstance(value, dict):
        return {name: _close(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_close(each) for each in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


def test_answer_shown_is_that_of_the_image_named() -> None:
    (name,) = re.findall(r"curl -F file=@(\S+)", TUTORIAL)
    shown = json.loads(re.sub(r",\s*…", "", TUTORIAL.split("```json", 1)[1].split("```", 1)[0]))
    runtime = open_runtime(ROOT / Settings.model_fields["model"].default, "onnx", "cpu")
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    (answer,) = LocalWorker(runtime, decoder.decode).work([job((ROOT / name).read_bytes())])
    described = describe(runtime.manifest, answer, AS_TRAINED, top_k=2, graph="full", total_s=0.0)
    told = orjson.loads(orjson.dumps(described))
    for part in ("blocks", "edges"):
        told["inference_graph"][part] = told["inference_graph"][part][: len(shown["inference_graph"][part])]
    assert told.pop("timing_ms").keys() == shown.pop("timing_ms").keys()
    assert shown == _close(told)


def test_drawing_shown_is_that_of_the_image_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command = re.search(r"\.venv/bin/python -m service (classify \S+)", TUTORIAL)
    assert command
    assert main([*command[1].split(), "--runtime", "onnx"]) == 0
    told = [
        text.strip().rpartition(", ")[0] for text in (capsys.readouterr().out, _shown("needs no server:"))
    ]  # but the time
    assert told[0] == told[1]


def test_http_page_has_every_route_of_the_server(server: ServerProcess) -> None:
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `((?:GET|POST) \S+)` \|", page, re.MULTILINE))
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert described == listed - {"GET /", "GET /docs"}
    assert described == set(re.findall(r"^### `(\w+ /\S*)`", routes(), re.MULTILINE))


def test_metrics_page_has_every_metric_of_the_server(server: ServerProcess) -> None:
    listed = set(re.findall(r"^\| `(\w+?)(?:_total)?` \|", metrics(), re.MULTILINE))
    with server.client() as client:
        text = client.get("/metrics").text
    served = {family.name for family in text_string_to_metric_families(text)}
    of_others = {name for name in listed if name.startswith(("aig_device_", "aig_key_"))}  # with GPUs, and with keys
    assert served | of_others == listed


def test_commands_of_datasets_offline_do_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "offline.md").read_text(encoding="utf-8")
    command = re.search(r"\.venv/bin/python -m service (classify-dataset \S+) (\S+)", page)
    assert command
    monkeypatch.chdir(ROOT)
    how = ["--runtime", "onnx", "--isolation", "thread", "--workers", "1", "--max-batch", "1"]
    assert main([*command[1].split(), str(tmp_path / command[2]), *how]) == 0
    assert "7 images, 0 with errors" in capsys.readouterr().err
    columns = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| .*$", page.split("| column | content |")[1].split("\n\n")[0], re.M
    )
    named = [name.strip("`") for each in columns for name in each.split(", ")]
    table = ds.dataset(tmp_path / command[2]).to_table()
    assert table.schema.names == named
    metadata = re.search(r"schema has (.+?),\s+the names", page, re.DOTALL)
    assert metadata
    told = set(table.schema.metadata or {})
    assert {name.encode() for name in re.findall(r"`(\w+)`", metadata[1])} <= told
    monkeypatch.chdir(tmp_path)
    exec(re.sub(r"\.to_pandas\(\)", "", page.split("```python", 1)[1].split("```", 1)[0]), {})  # pandas is not needed
    assert "airplane" in capsys.readouterr().out


def test_endings_that_the_page_names_are_those_of_images() -> None:
    page = (ROOT / "docs" / "offline.md").read_text(encoding="utf-8")
    told = re.search(r"ends like one: (.+?)\. A list", page, re.DOTALL)
    assert told
    assert set(re.findall(r"`(\.\w+)`", told[1])) == set(IMAGE_SUFFIXES)
