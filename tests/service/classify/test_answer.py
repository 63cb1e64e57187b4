from __future__ import annotations

import json

import numpy as np
import orjson
import pytest

from artifact.manifest import Block, Manifest
from service.classify.answer import AnswerWriter
from service.classify.budgets import AS_TRAINED, Plan, Wish
from service.classify.graph import describe
from service.classify.schemas import GraphDetail
from service.engine.job import Answer
from tests.runtimes import echo_manifest

# Names that mean something to JSON and to the pattern they are put in.
NAMES = ("a", 'b "%b" %', "c%%", "d\\\0", "ä")
LABELS = ("cat", '100% "dog"', "%b", "\0", "ö", "plane")


@pytest.fixture
def manifest() -> Manifest:
    blocks = tuple(
        Block(name=name, stage=1 + at // 2, gated=at > 0, macs=10 * at, shortcut_macs=at % 2, gate_macs=1)
        for at, name in enumerate(NAMES)
    )
    return echo_manifest().model_copy(update={"blocks": blocks, "labels": LABELS, "total_macs": 300})


def _answer(seed: int) -> Answer:
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.integers(-8, 4)
    return Answer(
        logits=tuple((scale * random.normal(size=len(LABELS))).tolist()),
        margins=tuple((scale * random.normal(size=len(NAMES) - 1)).tolist()),
        executed=(True, *(random.random(len(NAMES) - 1) < 0.5).tolist()),
        macs=int(random.integers(1, 300)),
        batch_size=1,
        decode_s=random.random(),
        queue_s=random.random() / 1e6,
        inference_s=random.random(),
    )


@pytest.mark.parametrize("graph", ["full", "summary", "none"])
@pytest.mark.parametrize("top_k", [1, 2, 5, 6, 1000])
def test_written_answer_is_the_described_one(manifest: Manifest, graph: GraphDetail, top_k: int) -> None:
    writer = AnswerWriter(manifest)
    for seed in range(100):
        answer = _answer(seed)
        plan = Plan(
            Wish(seed / 100 or None, None if seed % 3 else 1.5 * seed),
            gate_offset=0.25 * seed - 3,
            degraded=seed % 2 == 0,
        )
        written = writer.write(answer, plan, top_k, graph, 0.25)
        assert written == orjson.dumps(describe(manifest, answer, plan, top_k, graph, 0.25))


def test_written_answer_of_a_cascade_is_the_described_one(manifest: Manifest) -> None:
    blocks = [
        block.model_copy(update={"kind": "network"} if at == 2 else {"within": NAMES[2]} if at > 2 else {})
        for at, block in enumerate(manifest.blocks)
    ]
    cascade = manifest.model_copy(update={"blocks": tuple(blocks)})
    writer, seen = AnswerWriter(cascade), set()
    for seed in range(60):
        answer = _answer(seed)
        if not answer.executed[2]:
            answer = answer._replace(executed=(*answer.executed[:2], False, False, False))
        seen.add(answer.executed[2])
        assert writer.write(answer, AS_TRAINED, 3, "full", 0.25) == orjson.dumps(
            describe(cascade, answer, AS_TRAINED, 3, "full", 0.25)
        )
    assert seen == {True, False}


def test_equal_logits_keep_the_order_of_the_classes(manifest: Manifest) -> None:
    answer = _answer(0)._replace(logits=(1.0, 2.0, 2.0, 1.0, 2.0, 0.0))
    told = json.loads(AnswerWriter(manifest).write(answer, AS_TRAINED, 5, "none", 0.0))
    assert [guess["index"] for guess in told["predictions"]] == [1, 2, 4, 0, 3]
