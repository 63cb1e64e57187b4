"""What an image may cost: what its client asked for, as a gate offset of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic_settings import SettingsError

from artifact.budgets import Budget, BudgetCurve
from artifact.manifest import Manifest
from service.classify.numbers import number_in
from service.engine.inference_cost import InferenceCost
from service.engine.queueing.budget_limit import WHOLE, Step
from service.errors import ApiError

HEADER = "X-Compute-Budget"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked for.

    Attributes:
        budget: largest mean share of the multiply-accumulates; None where it does not matter.
        max_latency_ms: from the request's arrival, within which inference should be done; None likewise.
        may_degrade: whether the answer may be one of less compute where the service has too much to do.
        gate_offset: what to run the gates with, whatever that costs; it goes before the others.
    """

    budget: float | None = None
    max_latency_ms: float | None = None
    may_degrade: bool = True
    gate_offset: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an image is run with.

    Attributes:
        wish: of its client.
        gate_offset: of its gates.
        degraded: whether it has less than its client asked for, because the service has too much to do.
    """

    wish: Wish
    gate_offset: float
    degraded: bool = False

    def as_run(self, gate_offset: float) -> Plan:
        """What it was run with in the end."""
        return self if gate_offset == self.gate_offset else Plan(self.wish, gate_offset, degraded=True)


AS_TRAINED = Plan(Wish(), 0.0)
"""The plan of an image that nothing was asked for."""


class Budgets:
    """Makes plans of wishes, by what the export measured.

    Args:
        manifest: of the model.
        default: budget of requests that ask for none; None runs the gates as trained.
        cost: says how long inference takes.

    Raises:
        SettingsError: the default cannot be had.
    """

    def __init__(self, manifest: Manifest, default: float | None, cost: InferenceCost) -> None:
        self._curve = manifest.budgets
        self._total_macs = manifest.total_macs
        self._default = default
        self._cost = cost
        if default is not None:
            try:
                self._within(default)
            except ApiError as error:
                raise SettingsError(f"default_budget: {error}") from error

    def plan(self, wish: Wish, elapsed_s: float) -> Plan:
        """How to run an image, unless the service has too much to do.

        Args:
            wish: of its client.
            elapsed_s: since its request arrived, and until a worker will have time for it.

        Raises:
            ApiError: the model has no measured budgets, or none as small as this.
        """
        return Plan(wish, self._offset(wish, elapsed_s) if wish.gate_offset is None else wish.gate_offset)

    def _offset(self, wish: Wish, elapsed_s: float) -> float:
        budget = self._default if wish.budget is None else wish.budget
        offset = 0.0 if budget is None else self._within(budget).gate_offset
        if wish.max_latency_ms is not None:
            offset = min(offset, self._in_time(wish.max_latency_ms / 1000 - elapsed_s).gate_offset)
        return offset

    def _within(self, budget: float) -> Budget:
        curve = self._measured()
        if (row := curve.within(budget)) is None:
            raise _invalid(f"this model spends {math.ceil(curve.least * 1000) / 1000:g} of its compute at least")
        return row

    def _in_time(self, left_s: float) -> Budget:
        """The row with the largest offset whose inference fits into the time; the first one where none does."""
        curve, left_s = self._measured(), left_s - self._cost.decode_s
        rows = reversed(curve.rows)
        return next(
            (row for row in rows if self._cost.seconds(row.mac_share_p95 * self._total_macs) <= left_s), curve.rows[0]
        )

    def _measured(self) -> BudgetCurve:
        if self._curve is None:
            raise _invalid("this model was exported without budgets")
        return self._curve


def limits_to(manifest: Manifest, least_budget: float | None, least_accuracy: float | None) -> list[Step]:
    """What images may be limited to, falling from `WHOLE` to the least that the operator allows.

    Raises:
        SettingsError: the model has no measured budgets, or none as small or as good as that.
    """
    if least_budget is None and least_accuracy is None:
        return [WHOLE]
    curve = manifest.budgets
    if curve is None:
        raise SettingsError("least_budget and least_accuracy need a model that was exported with budgets")
    floors = []
    if least_budget is not None:
        floors.append(max(least_budget, curve.least))
    if least_accuracy is not None:
        if (row := curve.at_least(least_accuracy)) is None:
            best = max(each.accuracy.value for each in curve.rows)
            raise SettingsError(f"least_accuracy: this model's best is {best:g}")
        floors.append(row.mac_share)
    steps = [WHOLE]
    for row in reversed(curve.rows):
        if max(floors) <= row.mac_share < steps[-1].share:  # a smaller offset may have been measured to spend more
            steps.append(Step(row.mac_share, row.gate_offset))
    return steps


def budget_in(text: str, where: str) -> float:
    """The budget that a header or a form field says.

    Raises:
        ApiError: it is none.
    """
    budget = number_in(text)
    if not 0 < budget <= 1:  # what is not a number is not above 0 either
        raise ApiError(422, "invalid_parameter", f"{where} must be a number above 0 and at most 1")
    return budget


def _invalid(why: str) -> ApiError:
    return ApiError(422, "invalid_budget", why)
