from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.comparison import CLIENTS, ENVELOPE, LOADS, Case, Comparison
from bench.load_result import Result

SECONDS = 10.0


def _result(rate: float, latency_s: float, status: int = 200, refused: float = 0.0, wrong: int = 0) -> Result:
    """Answers at a steady rate, and refusals at another, over ten seconds."""
    counts = [round(rate * SECONDS), round(refused * SECONDS)]
    scheduled = np.concatenate([np.linspace(0, SECONDS, count, endpoint=False) for count in counts])
    statuses = np.repeat([status, 429], counts)
    return Result(
        scheduled_s=scheduled,
        sent_s=scheduled,
        latency_s=np.where(statuses == 429, 0.001, latency_s),
        status=statuses,
        retry_after=statuses == 429,
        lag_s=np.zeros(len(scheduled)),
        seconds=SECONDS,
        cpu_s=0.0,
        checked=1,
        wrong=wrong,
    )


def _comparison(peer_rate: float = 0.5, late_at_three: bool = False, wrong: int = 0) -> Comparison:
    """Ours is twice as fast as the envelope and answers in 4 ms; the peer's rate is a share of ours."""
    comparison = Comparison("ours")
    for clients in CLIENTS:
        ours = 2 * ENVELOPE[clients]
        comparison.add(Case("ours", "clients", clients), _result(ours, 0.004, wrong=wrong))
        comparison.add(Case("peer", "clients", clients), _result(peer_rate * ours, 0.008))
    for load in LOADS:
        late = late_at_three and load == LOADS[-1]
        comparison.add(Case("ours", "load", load), _result(500, 0.05 if late else 0.006, refused=700 * load))
        comparison.add(Case("peer", "load", load), _result(300, 5.0))
    return comparison


def test_server_that_is_ahead_everywhere_misses_nothing() -> None:
    assert _comparison().problems() == []


def test_peer_with_more_images_a_second_is_told() -> None:
    assert "peer classifies more images with 16 clients" in _comparison(peer_rate=1.5).problems()


def test_answers_that_come_too_late_under_overload_are_no_goodput() -> None:
    comparison = _comparison(late_at_three=True)
    assert comparison.goodput(Case("ours", "load", 2.0)) == pytest.approx(500, rel=0.01)
    assert comparison.goodput(Case("ours", "load", 3.0)) == 0
    assert "goodput at 3 x is 0% of its peak" in comparison.problems()


def test_wrong_answer_is_told() -> None:
    assert "ours gave a wrong answer" in _comparison(wrong=1).problems()


def test_medians_are_of_the_rounds() -> None:
    comparison = Comparison("ours")
    case = Case("ours", "clients", 1)
    for rate in (100, 900, 200):
        comparison.add(case, _result(rate, 0.001))
    assert comparison.images_per_s(case) == 200


def test_everything_is_told_in_tables_pictures_and_json(tmp_path: Path) -> None:
    comparison = _comparison()
    comparison.note_memory("ours", 123_000_000)
    comparison.draw(tmp_path, "conditions")
    assert {path.name for path in tmp_path.iterdir()} == {"throughput.png", "latency.png", "goodput.png"}
    assert "123" in comparison.tables()
    told = json.loads(json.dumps(comparison.as_json(), allow_nan=False))
    assert len(told["cases"]) == 2 * (len(CLIENTS) + len(LOADS))
