from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from artifact.manifest import Block, Manifest
from service.classify.budgets import Plan, Wish
from service.classify.graph import describe, inference_graph, layers, predictions
from service.engine.job import Answer
from tests.runtimes import echo_manifest

PLAN = Plan(Wish(budget=0.5, max_latency_ms=20.0), gate_offset=-1.5)
BLOCKS = (
    Block(name="a", stage=1, gated=False, macs=10, shortcut_macs=0, gate_macs=0),
    Block(name="b", stage=1, gated=True, macs=10, shortcut_macs=0, gate_macs=1),
    Block(name="c", stage=2, gated=True, macs=20, shortcut_macs=5, gate_macs=1),
    Block(name="d", stage=2, gated=True, macs=20, shortcut_macs=0, gate_macs=1),
)


@pytest.fixture
def manifest() -> Manifest:
    return echo_manifest().model_copy(update={"blocks": BLOCKS, "total_macs": 100})


@pytest.fixture
def answer() -> Answer:
    return Answer(
        logits=(1.0, 3.0, 2.0),
        margins=(0.5, -2.0, 3.0),
        executed=(True, True, False, True),
        macs=80,
        batch_size=2,
        decode_s=0.001,
        queue_s=0.002,
        inference_s=0.0034567,
    )


def _path(manifest: Manifest, answer: Answer) -> list[str]:
    edges = inference_graph(manifest, answer).edges
    assert [edge["target"] for edge in edges[:-1]] == [edge["source"] for edge in edges[1:]]
    return [edges[0]["source"], *(edge["target"] for edge in edges)]


@pytest.mark.parametrize(
    ("executed", "path"),
    [
        ([1, 1, 1, 1], "input stem a b c d classifier"),
        ([1, 0, 1, 1], "input stem a c d classifier"),
        ([1, 1, 0, 1], "input stem a b c.shortcut d classifier"),
        ([1, 1, 1, 0], "input stem a b c classifier"),
        ([1, 0, 0, 0], "input stem a c.shortcut classifier"),
    ],
)
def test_path_leads_through_what_ran_and_past_what_was_skipped(
    manifest: Manifest, answer: Answer, executed: list[int], path: str
) -> None:
    assert _path(manifest, answer._replace(executed=tuple(map(bool, executed)))) == path.split()


def test_margins_belong_to_the_gated_blocks_in_order(manifest: Manifest, answer: Answer) -> None:
    blocks = inference_graph(manifest, answer).blocks
    assert [run["margin"] for run in blocks] == [None, 0.5, -2, 3]
    assert [run["gate_probability"] for run in blocks[1:]] == pytest.approx(
        [1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-3))]
    )


@pytest.mark.parametrize("margin", [-1000, -50, -1, 0, 1, 50, 1000])
def test_gate_probability_of_any_margin_is_a_probability(manifest: Manifest, answer: Answer, margin: float) -> None:
    _, one, other, half = inference_graph(manifest, answer._replace(margins=(margin, -margin, 0.0))).blocks
    assert one["gate_probability"] is not None
    assert other["gate_probability"] is not None
    assert 0 <= one["gate_probability"] <= 1
    assert one["gate_probability"] + other["gate_probability"] == pytest.approx(1)
    assert half["gate_probability"] == 0.5


def test_layers_count_and_name_what_was_skipped(manifest: Manifest, answer: Answer) -> None:
    counted = layers(manifest, answer)
    assert (counted.executed, counted.skipped, counted.total, counted.skipped_names) == (3, 1, 4, ["c"])


def test_predictions_are_best_first(manifest: Manifest, answer: Answer) -> None:
    guesses = predictions(manifest.labels, answer, top_k=2)
    total = math.e + math.e**2 + math.e**3
    assert [(guess.label, guess.index) for guess in guesses] == [("class 1", 1), ("class 2", 2)]
    assert [guess.probability for guess in guesses] == pytest.approx([math.e**3 / total, math.e**2 / total])


def test_huge_logits_do_not_overflow(manifest: Manifest, answer: Answer) -> None:
    guesses = predictions(manifest.labels, answer._replace(logits=(-1e4, 1e4, 0.0)), top_k=3)
    assert [(guess.index, guess.probability) for guess in guesses] == [(1, 1.0), (2, 0.0), (0, 0.0)]


def test_description_tells_cost_model_and_times(manifest: Manifest, answer: Answer) -> None:
    described = describe(manifest, answer, PLAN, top_k=3, graph="full", total_s=0.01)
    asked = {"budget": 0.5, "max_latency_ms": 20.0, "gate_offset": -1.5, "degraded": False}
    assert asdict(described.compute) == {"macs": 80, "total_macs": 100, "ratio": 0.8} | asked
    assert asdict(described.model) == {"name": "echo", "version": "1"}
    assert asdict(described.timing_ms) == {"decode": 1.0, "queue": 2.0, "inference": 3.457, "total": 10.0}


CASCADE = (
    *BLOCKS[:3],
    Block(name="two", kind="network", stage=3, gated=True, macs=15, shortcut_macs=0, gate_macs=0),
    Block(name="d", stage=3, gated=True, macs=10, shortcut_macs=2, gate_macs=1, within="two"),
    Block(name="e", stage=3, gated=False, macs=10, shortcut_macs=0, gate_macs=0, within="two"),
)


@pytest.mark.parametrize(
    ("executed", "edges"),
    [
        ([1, 1, 1, 1, 1, 1], "input-stem stem-a a-b b-c c-classifier input-two two-d d-e e-classifier"),
        (
            [1, 1, 1, 1, 0, 1],
            "input-stem stem-a a-b b-c c-classifier input-two two-d.shortcut d.shortcut-e e-classifier",
        ),
        ([1, 0, 0, 0, 0, 0], "input-stem stem-a a-c.shortcut c.shortcut-classifier"),
    ],
)
def test_each_network_of_a_cascade_is_a_chain_from_the_image_to_the_classifier(
    manifest: Manifest, answer: Answer, executed: list[int], edges: str
) -> None:
    cascade = manifest.model_copy(update={"blocks": CASCADE})
    told = inference_graph(cascade, answer._replace(executed=tuple(map(bool, executed)), margins=(1.0, 2.0, 3.0, 4.0)))
    assert " ".join(f"{edge['source']}-{edge['target']}" for edge in told.edges) == edges


def test_gates_of_a_network_that_was_not_asked_say_nothing(manifest: Manifest, answer: Answer) -> None:
    cascade = manifest.model_copy(update={"blocks": CASCADE})
    executed = (True, True, True, False, False, False)
    blocks = inference_graph(cascade, answer._replace(executed=executed, margins=(1.0, 2.0, -3.0, 0.0))).blocks
    assert [run["margin"] for run in blocks] == [None, 1, 2, -3, None, None]
    assert [run["gate_probability"] is None for run in blocks] == [True, False, False, False, True, True]
    assert [run["kind"] for run in blocks] == ["residual"] * 3 + ["network"] + ["residual"] * 2
