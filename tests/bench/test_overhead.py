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
    ("flags", "variable", "expected"),
    [([], None, "process"), ([], "thread", "thread"), (["--isolation", "process"], "thread", "process")],
)
def test_isolation_is_passed_to_the_service_and_told(
    flags: list[str],
    variable: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AIG_ISOLATION", raising=False)
    if variable is not None:
        monkeypatch.setenv("AIG_ISOLATION", variable)
    services = []

    def measure(service: Peer, _model: Path, _rounds: int) -> Overhead:
        services.append(service)
        return _MODEL

    monkeypatch.setattr(overhead, "measure", measure)
    assert main(["--model", "anywhere", *flags]) == 0
    assert [service.environment for service in services] == [{"AIG_ISOLATION": expected}]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["isolation"] == expected
