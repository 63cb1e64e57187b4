from __future__ import annotations

import asyncio
import signal
from typing import Any

from service.frontends.changes import Changes, Refusal
from service.frontends.talk import NoAnswer

_FAILED = [422, "model_failed", "it cannot be served", {}]


class _FrontEnd:
    """Does what it is asked, or says why not; it is its own talk."""

    def __init__(self, number: int, answer: Refusal | NoAnswer | None = None) -> None:
        self.number = number
        self.serving = True
        self.models: object = None
        self.asked: list[object] = []
        self.signals: list[signal.Signals] = []
        self._answer = answer

    @property
    def talk(self) -> _FrontEnd:
        return self

    async def ask(self, what: str, about: Any, within_s: float) -> Any:
        assert within_s < 300
        self.asked.append((what, *about))
        if isinstance(self._answer, NoAnswer):
            raise self._answer
        return {"refusal": self._answer, "models": [["small", "2"]]}

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)


def _make(*front_ends: _FrontEnd, count: int = 3) -> Refusal | None:
    async def made() -> Refusal | None:
        changes = Changes(lambda: {each.number: each for each in front_ends}, count)  # type: ignore[misc]
        return await changes.make("load", "small", "2")

    return asyncio.run(made())


def test_all_make_a_change() -> None:
    front_ends = [_FrontEnd(number) for number in range(3)]
    assert _make(*front_ends) is None
    assert [each.asked for each in front_ends] == [[("change", "load", "small", "2")]] * 3
    assert [each.models for each in front_ends] == [[["small", "2"]]] * 3


def test_what_the_first_cannot_do_nobody_is_asked_for() -> None:
    first, *others = _FrontEnd(0, _FAILED), _FrontEnd(1), _FrontEnd(2)
    assert _make(*others, first) == _FAILED
    assert [each.asked for each in others] == [[], []]
    assert not first.signals


def test_one_that_cannot_follow_the_first_is_replaced() -> None:
    first, second, third = _FrontEnd(0), _FrontEnd(1, _FAILED), _FrontEnd(2, NoAnswer("has ended"))
    refusal = _make(first, second, third)
    assert refusal is not None
    assert refusal[:2] == [503, "front_end_missing"]
    assert "front end 1 is replaced" in refusal[2]
    assert [each.signals for each in (first, second, third)] == [[], [signal.SIGTERM], [signal.SIGTERM]]
    assert [each.serving for each in (first, second, third)] == [True, False, False]


def test_change_while_one_is_missing_is_refused() -> None:
    front_ends = [_FrontEnd(number) for number in range(3)]
    front_ends[1].serving = False
    for refusal in (_make(*front_ends), _make(*front_ends[::2])):
        assert refusal is not None
        assert refusal[1] == "front_end_missing"
    assert not any(each.asked for each in front_ends)
