from __future__ import annotations

import pytest

from service.engine.queueing.fair_shares import FairShares


@pytest.fixture
def shares() -> FairShares:
    shares = FairShares()
    shares.open(1, weight=1)
    shares.open(2, weight=1)
    return shares


def _served(shares: FairShares, times: int, seconds: dict[int, float]) -> dict[int, float]:
    """Seconds that each of some models, which always want more, has been given."""
    spent = dict.fromkeys(seconds, 0.0)
    for _ in range(times):
        model = shares.in_turn(seconds)[0]
        shares.give(model, seconds[model])
        spent[model] += seconds[model]
    return spent


@pytest.mark.parametrize("seconds", [{1: 1.0, 2: 1.0}, {1: 1.0, 2: 0.1}, {1: 5.0, 2: 0.1}])
def test_time_is_shared_alike_however_long_each_takes(shares: FairShares, seconds: dict[int, float]) -> None:
    spent = _served(shares, 1000, seconds)
    assert spent[1] == pytest.approx(spent[2], abs=max(seconds.values()))


def test_weights_are_parts_of_the_time() -> None:
    shares = FairShares()
    shares.open(1, weight=3)
    shares.open(2, weight=1)
    spent = _served(shares, 1000, {1: 1.0, 2: 1.0})
    assert spent[1] / spent[2] == pytest.approx(3, rel=0.02)
    assert shares.share(1, [1, 2]) == shares.share(1, [2]) == 0.75


def test_what_was_not_used_is_not_kept_for_later(shares: FairShares) -> None:
    for _ in range(100):
        shares.give(1, 1.0)
    spent = _served(shares, 100, {1: 1.0, 2: 1.0})
    assert spent[2] - spent[1] <= 2


def test_model_that_comes_later_begins_where_the_others_are(shares: FairShares) -> None:
    _served(shares, 100, {1: 1.0, 2: 1.0})
    shares.open(3, weight=1)
    spent = _served(shares, 99, {1: 1.0, 2: 1.0, 3: 1.0})
    assert max(spent.values()) - min(spent.values()) <= 2


def test_what_took_longer_than_was_thought_is_made_up_for(shares: FairShares) -> None:
    shares.give(1, 1.0)
    shares.correct(1, 4.0)
    assert [shares.in_turn([1, 2])[0] for _ in range(5) if shares.give(2, 1.0) is None][:4] == [2, 2, 2, 2]


def test_who_is_alone_has_everything(shares: FairShares) -> None:
    assert shares.share(1, [1]) == shares.share(1, []) == 1
    shares.close(2)
    assert shares.in_turn([1]) == [1]
