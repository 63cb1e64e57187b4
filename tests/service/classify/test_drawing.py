from __future__ import annotations

from service.classify.drawing import LEGEND, REPLACING, draw
from service.classify.schemas import (
    BlockRun,
    Classification,
    Compute,
    InferenceGraph,
    Layers,
    ModelName,
    Prediction,
    Timing,
)


def _block(name: str, stage: int, gated: bool, executed: bool) -> BlockRun:
    return BlockRun(name=name, stage=stage, gated=gated, executed=executed, margin=None, gate_probability=None, macs=10)


ANSWER = Classification(
    predictions=[
        Prediction(label="cat", index=3, probability=0.9215),
        Prediction(label="dog", index=5, probability=0.0512),
    ],
    inference_graph=InferenceGraph(
        blocks=[
            _block("a", 1, gated=False, executed=True),
            _block("b", 1, gated=True, executed=False),
            _block("c", 2, gated=True, executed=True),
            _block("d", 2, gated=True, executed=False),
        ],
        edges=[],
    ),
    layers=Layers(executed=2, skipped=2, total=4, skipped_names=["b", "d"]),
    compute=Compute(
        macs=3_000_000,
        total_macs=4_000_000,
        ratio=0.75,
        budget=None,
        max_latency_ms=None,
        gate_offset=0.0,
        degraded=False,
    ),
    model=ModelName(name="small", version="1"),
    timing_ms=Timing(decode=1, queue=0, inference=2.345, total=4),
)


def test_drawing_shows_prediction_path_and_cost() -> None:
    assert draw("cat.png", ANSWER, colour=False).splitlines() == [
        "cat.png: cat 92.2%   dog 5.1%",
        "  stage 1  ▣ □",
        "  stage 2  ■ □",
        "  2 of 4 blocks executed, 75% of 4.0 million multiply-accumulates, 2.3 ms",
    ]


def test_colours_are_only_for_terminals_that_show_them() -> None:
    coloured = draw("cat.png", ANSWER, colour=True)
    assert "\x1b" not in draw("cat.png", ANSWER, colour=False)
    assert "\x1b[36m▣\x1b[0m \x1b[90m□\x1b[0m" in coloured
    assert "\x1b[32m■\x1b[0m" in coloured


def test_legend_explains_every_box() -> None:
    assert all(box in LEGEND for box in "■□▣")


def test_output_that_can_show_no_boxes_shows_others() -> None:
    shown = draw("caf\xe9.png", ANSWER, colour=False).encode("ascii", REPLACING).decode()
    assert shown.splitlines()[:3] == ["caf?.png: cat 92.2%   dog 5.1%", "  stage 1  = .", "  stage 2  # ."]
    assert LEGEND.encode("ascii", REPLACING).decode().startswith("# gate open, block executed   . gate closed")
    assert LEGEND.encode("utf-8", REPLACING).decode() == LEGEND
