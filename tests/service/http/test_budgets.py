from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.budgets import BUDGETS, limit_all
from tests.image_files import encoded, photograph
from tests.runtimes import EchoRuntime
from tests.service.server import Server, serving
from tests.told_metrics import told

IMAGE = encoded(photograph(32, 32), "PNG")


@pytest.fixture
def budgeted(echo_runtime: EchoRuntime) -> Iterator[Server]:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    with serving(echo_runtime, max_images=3) as started:
        yield started


def _compute(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["compute"]
    return found


def _post(server: Server, query: str = "", **headers: str) -> httpx.Response:
    return server.post(f"/classify{query}", content=IMAGE, headers={"content-type": "image/png"} | headers)


def _batch(server: Server, budgets: list[str], files: int = 2, query: str = "") -> httpx.Response:
    parts: list[tuple[str, Any]] = [("files", (f"{number}.png", IMAGE)) for number in range(files)]
    parts += [("budget", (None, text)) for text in budgets]
    return server.post(f"/classify/batch{query}", files=parts)


def test_budget_of_the_query_or_the_header_is_applied_and_told(budgeted: Server, echo_runtime: EchoRuntime) -> None:
    asked = _compute(_post(budgeted, "?budget=0.6"))
    assert (asked["budget"], asked["gate_offset"], asked["max_latency_ms"]) == (0.6, -1.0, None)
    assert echo_runtime.offsets[-1] == [-1.0]
    assert _compute(_post(budgeted, **{"X-Compute-Budget": "1"}))["gate_offset"] == 1e4
    assert _compute(_post(budgeted, "?budget=0.6", **{"X-Compute-Budget": "1"}))["budget"] == 0.6
    nothing = _compute(_post(budgeted))
    assert (nothing["budget"], nothing["gate_offset"]) == (None, 0.0)


def test_latency_is_told_too(budgeted: Server) -> None:
    asked = _compute(_post(budgeted, "?max_latency_ms=0.001"))
    assert (asked["budget"], asked["max_latency_ms"], asked["gate_offset"]) == (None, 0.001, -1e4)


def test_default_budget_is_the_operators(echo_runtime: EchoRuntime) -> None:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    with serving(echo_runtime, default_budget=0.5) as server:
        assert _compute(_post(server))["gate_offset"] == -1.0
        assert _compute(_post(server, "?budget=1"))["gate_offset"] == 1e4


@pytest.mark.parametrize(
    ("budgets", "offsets"), [([], [0.0, 0.0]), (["0.5"], [-1.0, -1.0]), (["0.5", "1"], [-1.0, 1e4])]
)
def test_form_has_a_budget_for_all_files_or_for_each(
    budgeted: Server, budgets: list[str], offsets: list[float]
) -> None:
    told = _batch(budgeted, budgets).json()["results"]
    assert [result["answer"]["compute"]["gate_offset"] for result in told] == offsets


def test_budget_of_the_form_goes_before_that_of_the_query(budgeted: Server) -> None:
    told = _batch(budgeted, ["0.5"], query="?budget=1").json()["results"]
    assert [result["answer"]["compute"]["budget"] for result in told] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("budgets", "type_", "said"),
    [
        (["0.2"], "invalid_budget", "0.3 of its compute at least"),
        (["much"], "invalid_parameter", "'budget' must be a number"),
        (["0.5"] * 3, "invalid_parameter", "3 fields 'budget' for 2 files"),
        (["0.5"] * 4, "invalid_parameter", "at most 3 fields"),
        (["0" * 33], "invalid_parameter", "more than 32 bytes"),
    ],
)
def test_wrong_budget_of_a_form_is_refused(budgeted: Server, budgets: list[str], type_: str, said: str) -> None:
    answer = _batch(budgeted, budgets)
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == type_
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "type_"),
    [
        ("?budget=0.1", "invalid_budget"),
        ("?budget=0", "invalid_parameter"),
        ("?budget=1.5", "invalid_parameter"),
        ("?budget=nan", "invalid_parameter"),
        ("?max_latency_ms=0", "invalid_parameter"),
        ("?max_latency_ms=inf", "invalid_parameter"),
    ],
)
def test_budget_that_cannot_be_had_is_refused_before_the_body_is_read(
    budgeted: Server, echo_runtime: EchoRuntime, query: str, type_: str
) -> None:
    before = len(echo_runtime.batches)
    answer = budgeted.post(f"/classify{query}", content=b"no image", headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, type_)
    assert len(echo_runtime.batches) == before


def test_wrong_header_is_refused(budgeted: Server) -> None:
    answer = _post(budgeted, **{"X-Compute-Budget": "lots"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_parameter")


def test_model_without_budgets_says_so(server: Server) -> None:
    answer = server.classify(IMAGE, "?budget=0.5")
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_budget")


def test_answer_of_a_limited_budget_says_so_and_is_counted(
    echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    with serving(echo_runtime, least_budget=0.4, recheck_share=0) as server:
        limit_all(monkeypatch, 0.5)
        limited, never, less = (_compute(_post(server, query)) for query in ("", "?degrade=never", "?budget=0.3"))
        samples = told(server.get("/metrics").text)
    assert (limited["degraded"], limited["gate_offset"], limited["budget"]) == (True, -1.0, None)
    assert (never["degraded"], never["gate_offset"]) == (False, 0.0)
    assert (less["degraded"], less["gate_offset"]) == (False, -1e4)
    assert samples["aig_degraded_images_total", frozenset()] == 1.0
    assert samples["aig_budget_limit", frozenset()] == 0.5


def test_limit_and_objective_are_told(echo_runtime: EchoRuntime) -> None:
    with serving(echo_runtime, objective_ms=25) as server:
        samples = told(server.get("/metrics").text)
    assert samples["aig_budget_limit", frozenset()] == 1.0
    assert samples["aig_objective_seconds", frozenset()] == 0.025


def test_degrade_is_allowed_or_not(budgeted: Server) -> None:
    answer = _post(budgeted, "?degrade=perhaps")
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_parameter")
