from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("llvmlite", reason="needs llvmlite")

from service.settings import Settings
from tests.e2e.process import ROOT, ServerProcess
from tests.image_files import encoded, photograph
from tests.service.engine.runtimes.compiled.trapping import keep_trapping

MODEL = ROOT / Settings.model_fields["model"].default


def test_server_starts_though_the_code_that_was_kept_ends_the_process(tmp_path: Path) -> None:
    flags = "--cache", str(tmp_path), "--runtime", "compiled", "--workers", "2"
    picture = encoded(photograph(60, 40, 1), "PNG")

    def answers() -> tuple[object, list[str]]:
        with ServerProcess(MODEL, *flags) as server, server.client() as client:
            answer = client.post("/classify", content=picture, headers={"content-type": "image/png"}).json()
        return answer["predictions"], [line for line in server.lines if "made again" in line]

    expected, warned = answers()
    assert warned == []
    keep_trapping(MODEL, tmp_path)
    predictions, warned = answers()
    assert predictions == expected
    (warning,) = warned
    assert "compiled-fp32.bin has ended the process that ran it" in warning
    assert answers() == (expected, [])
