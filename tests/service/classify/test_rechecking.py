from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest

from artifact.manifest import ALWAYS
from service.classify import rechecking
from service.classify.rechecking import Rechecks
from service.engine.engine import Engine
from service.engine.errors import Overloaded
from service.engine.job import Answer, Outcome
from service.observability.model_metrics import ModelMetrics
from tests.runtimes import echo_manifest


def _answer(*logits: float) -> Answer:
    return Answer(logits, (), (), 1, 1, 0.0, 0.0, 0.0)


@dataclass
class _Job:
    withdrawn: bool = False

    def withdraw(self) -> None:
        self.withdrawn = True


@dataclass
class _Engine:
    """Answers with what it is told to."""

    outcome: Outcome
    ready: bool = True
    idle: bool = True
    given: list[tuple[bytes, bool, float]] = field(default_factory=list)

    def submit(
        self, image: bytes, _: float, answered: Callable[[Outcome], None], *, gate_offset: float, is_tensor: bool
    ) -> _Job:
        self.given.append((image, is_tensor, gate_offset))
        if isinstance(self.outcome, Overloaded):
            raise self.outcome
        answered(self.outcome)
        return _Job()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rechecking, "_PULSE_S", 0.0)


def _counts(engine: _Engine, share: float = 1.0, images: int = 1, **changes: Any) -> tuple[float, float]:
    """How many were the same and how many were not, a while after degraded answers of class 1."""
    metrics = ModelMetrics(echo_manifest())

    async def scenario() -> None:
        rechecks = Rechecks(cast(Engine, engine), metrics, share, Random(0))
        rechecks.begin()
        for number in range(images):
            rechecks.consider(changes.get("image", b"%d" % number), _answer(0.0, 2.0, 1.0))
        for _ in range(200):  # far more turns of the loop than that takes
            await asyncio.sleep(0)
        rechecks.end()

    asyncio.run(scenario())
    found = [
        metrics.registry.get_sample_value("aig_rechecked_images_total", {"same": same}) for same in ("true", "false")
    ]
    return found[0] or 0.0, found[1] or 0.0


def test_image_is_run_again_in_full_and_compared() -> None:
    engine = _Engine(_answer(0.0, 1.0, 0.5))
    assert _counts(engine) == (1, 0)
    assert engine.given == [(b"0", False, ALWAYS)]
    assert _counts(_Engine(_answer(5.0, 1.0, 0.5))) == (0, 1)


@pytest.mark.parametrize("busy", [{"ready": False}, {"idle": False}], ids=["not ready", "busy"])
def test_nothing_is_run_again_while_there_is_something_else_to_do(busy: dict[str, Any]) -> None:
    engine = _Engine(_answer(0.0, 1.0), **busy)
    assert _counts(engine) == (0, 0)
    assert engine.given == []


def test_failed_run_counts_as_nothing_and_others_follow() -> None:
    engine = _Engine(Overloaded(1.0))
    assert _counts(engine, images=3) == (0, 0)
    assert len(engine.given) == 3
    assert _counts(_Engine(ValueError("no image")), images=3) == (0, 0)


def test_only_a_share_is_kept_and_few_at_a_time() -> None:
    engine = _Engine(_answer(0.0, 1.0))
    same, _ = _counts(engine, share=0.1, images=60)
    assert 1 <= same <= 12
    same, _ = _counts(_Engine(_answer(0.0, 1.0)), images=1000)
    assert same == 16


def test_large_files_are_not_kept() -> None:
    assert _counts(_Engine(_answer(0.0, 1.0)), image=bytes(1_000_001)) == (0, 0)


def test_share_of_nothing_looks_at_nothing() -> None:
    assert _counts(_Engine(_answer(0.0, 1.0)), share=0.0, images=10) == (0, 0)
