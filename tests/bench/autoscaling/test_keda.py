"""KEDA as its documentation has it: it polls, cools down, and leaves the rest to the Horizontal Pod Autoscaler."""

from __future__ import annotations

from bench.autoscaling.fleet import Second
from bench.autoscaling.keda import Keda


def _replicas(keda: Keda, loads: list[float], start: int) -> list[int]:
    """After each second, where replicas are there at once."""
    replicas = [start]
    for now_s, load in enumerate(loads):
        second = Second(now_s, load, load, 0, 0, 0.5, 0, replicas[-1], replicas[-1])
        replicas.append(keda.decide(second))
    return replicas


def test_load_is_divided_by_the_threshold() -> None:
    assert _replicas(Keda(100, 1, 50), [650.0] * 120, start=5)[-1] == 7


def test_refused_images_count_as_load() -> None:
    keda = Keda(100, 1, 50)
    replicas = [keda.decide(Second(now_s, 800, 300, 500, 0, 1, 0, 3, 3)) for now_s in range(120)]
    assert max(replicas) == 7  # of the eight needed: at most four more in 15 s


def test_metric_is_as_old_as_the_polling_interval_only_if_it_is_cached() -> None:
    loads = [100.0] * 61 + [1_000.0] * 60
    changed = [
        next(at for at, count in enumerate(_replicas(Keda(100, 1, 50, cached=cached), loads, start=1)) if count > 1)
        for cached in (False, True)
    ]
    assert changed == [61 + 22, 61 + 37]


def test_last_replica_goes_after_the_cooldown_and_comes_back_at_the_next_poll() -> None:
    loads = [100.0] * 60 + [0.0] * 500 + [50.0] * 60
    replicas = _replicas(Keda(100, 0, 50), loads, start=1)
    gone = replicas.index(0)
    # The rate is that of a minute, so it is zero a minute later; then 300 s pass.
    assert 60 + 300 < gone <= 60 + 60 + 300 + 30
    back = next(at for at in range(gone, len(replicas)) if replicas[at])
    assert 560 < back <= 560 + 15 + 30
    assert all(count == 0 for count in replicas[gone:back])


def test_cooldown_is_only_for_the_last_replica() -> None:
    replicas = _replicas(Keda(100, 1, 50), [100.0] * 60 + [0.0] * 1_000, start=1)
    assert set(replicas) == {1}
