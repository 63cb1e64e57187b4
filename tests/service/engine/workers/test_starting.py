from __future__ import annotations

import numpy as np
import pytest

from service.engine.errors import EngineStopped, InferenceFailed, Overloaded
from tests.runtimes import PATIENCE_S, EchoRuntime
from tests.service.engine.conftest import MakeEngine


def test_model_runs_on_one_image_and_on_a_full_batch_before_the_engine_is_ready(
    make_engine: MakeEngine, runtime: EchoRuntime
) -> None:
    engine = make_engine(max_batch=8)
    assert not engine.ready
    engine.start()
    assert engine.ready
    assert sorted(len(batch) for batch in runtime.batches) == [1, 8]
    assert np.array_equal(runtime.seen, np.zeros(9))


def test_full_batch_is_warmed_up_with_gates_both_open_and_closed(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    # Or the branch that gathers the open ones would first be run for somebody's image.
    make_engine(max_batch=8).start()
    (offsets,) = [offsets for offsets in runtime.offsets if len(offsets) == 8]
    assert (min(offsets), max(offsets)) == (-1e4, 1e4)


def test_offsets_of_images_are_zero(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    engine = make_engine(max_batch=8)
    engine.start()
    engine.submit(1.0, PATIENCE_S).result(PATIENCE_S)
    assert runtime.offsets[-1] == [0.0]


def test_engine_with_single_image_batches_warms_up_once(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    make_engine(max_batch=1).start()
    assert runtime.batches == [[0.0]]


def test_model_that_does_not_run_never_gets_ready(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    runtime.poison = {0.0}
    engine = make_engine()
    with pytest.raises(InferenceFailed) as caught:
        engine.start()
    assert "poisoned" in str(caught.value.__cause__)
    assert not engine.ready
    with pytest.raises(EngineStopped):
        engine.submit(1.0, PATIENCE_S)
    with pytest.raises(EngineStopped):
        engine.require_room()


def test_engine_says_whether_it_has_room(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    engine = make_engine(capacity=1)
    with pytest.raises(EngineStopped):
        engine.require_room()
    engine.start()
    engine.require_room()
    runtime.hold()
    engine.submit(1.0, PATIENCE_S)
    runtime.wait_until_running()
    queued = engine.submit(2.0, PATIENCE_S)
    with pytest.raises(Overloaded):
        engine.require_room()
    queued.withdraw()
    engine.require_room()
