from __future__ import annotations

import pytest

from service.engine.batcher import Batcher, BatchPolicy
from tests.service.engine.queueing import Clock, MakeBatcher


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_batcher(clock: Clock) -> MakeBatcher:
    def make(capacity: int = 100, workers: int = 1, max_batch: int = 8, max_wait_ms: float = 0) -> Batcher[str, str]:
        return Batcher(capacity, BatchPolicy(workers, max_batch, max_wait_ms), clock)

    return make
