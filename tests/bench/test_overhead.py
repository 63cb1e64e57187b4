from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import overhead
from bench.overhead import Overhead, Saturation, main, problems
from bench.peer_servers import Peer

_MODEL = Overhead(
    model="a network",
    in_process=1000,
    http=950,
    share=0.95,
    share_quartiles=(0.94, 0.96),
    share_of_rest=0.98,
    share_of_rest_quartiles=(0.97, 0.99),
    generator_share=0.03,
    generator_ms=0.06,
    in_process_ms=1.0,
    http_ms=1.5,
    added_ms=0.5,
    start_s=0.8,
    resident_mb=100,
)


def test_time_that_the_generator_takes_is_left_out_of_the_second_share_only() -> None:
    window = Saturation(in_process=1000, http=600, generator_ms=0.5, cores=2)
    assert window.share == pytest.approx(0.6)
    assert window.generator_share == pytest.approx(0.15)  # 0.3 s of processor time a second, of two cores
    assert window.share_of_rest == pytest.approx(0.6 / 0.85)


def test_first_share_is_the_one_that_is_judged() -> None:
    assert problems(_MODEL) == []
    low = Overhead(**{**vars(_MODEL), "share": 0.85})
    assert problems(low) == ["a network: HTTP reaches 85.0% of the images a second in process"]


@pytest.mark.parametrize(
    ("flags", "variables", "isolation", "runtime"),
    [
        ([], {}, "process", "auto"),
        ([], {"AIG_ISOLATION": "thread", "AIG_RUNTIME": "compiled"}, "thread", "compiled"),
        (["--isolation", "process", "--runtime", "onnx"], {"AIG_ISOLATION": "thread"}, "process", "onnx"),
    ],
)
def test_both_sides_are_run_as_asked_for_and_that_is_told(
    flags: list[str],
    variables: dict[str, str],
    isolation: str,
    runtime: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("AIG_ISOLATION", "AIG_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = []

    def measure(service: Peer, _model: Path, _rounds: int, in_process: str) -> Overhead:
        asked.append((service.environment, in_process))
        return _MODEL

    monkeypatch.setattr(overhead, "measure", measure)
    assert main(["--model", "anywhere", *flags]) == 0
    assert asked == [({"AIG_ISOLATION": isolation, "AIG_RUNTIME": runtime}, runtime)]
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["isolation"], told["runtime"]) == (isolation, runtime)
