"""Whose turn it is where several models want the same workers: start-time fair queueing (Goyal et al. 1996)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Account:
    weight: float
    finish: float  # where what it was given ends, in seconds of a worker's time by weight


class FairShares:
    """Of the workers' time, each model that wants some has a part in proportion to its weight.

    What a model has not used while it wanted nothing is not kept for later: whoever wants something for the first time
    in a while begins where the others are.
    """

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}
        self._start = 0.0  # where what was last given to anybody begins

    def open(self, model: int, weight: float) -> None:
        """Know a model.

        Args:
            model: its number.
            weight: how large its part is beside others'.
        """
        self._accounts[model] = _Account(weight, self._start)

    def close(self, model: int) -> None:
        """Forget a model."""
        del self._accounts[model]

    def give(self, model: int, seconds: float) -> None:
        """Note that a worker will be busy with a model for about so long."""
        account = self._accounts[model]
        self._start = max(self._start, account.finish)
        account.finish = self._start + seconds / account.weight

    def correct(self, model: int, seconds: float) -> None:
        """Note that it took so much longer than was noted, or less."""
        account = self._accounts[model]
        account.finish += seconds / account.weight

    def in_turn(self, models: Iterable[int]) -> list[int]:
        """These models, whose turn it is first."""
        return sorted(models, key=lambda model: max(self._start, self._accounts[model].finish))

    def share(self, model: int, wanting: Iterable[int]) -> float:
        """The part of the workers' time that a model may count on while others, or itself, want some."""
        weights = {each: self._accounts[each].weight for each in {model, *wanting}}
        return weights[model] / sum(weights.values())
