"""What a network does at other compute budgets, as its export measured it: the same network, with gate offsets."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Accuracy(_Model):
    """Share of the images classified correctly, with its 95% confidence interval (Wilson 1927)."""

    value: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _is_within(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("an accuracy is not within its interval")
        return self


class Budget(_Model):
    """What was measured with one gate offset.

    Attributes:
        gate_offset: added to the margin of every gate.
        mac_share: multiply-accumulates spent on an image, of those with every block executed, mean.
        mac_share_p95: their 95th percentile.
        accuracy: of the images.
        same_as_full: share of the images whose prediction is that of the full path, with every block executed.
    """

    gate_offset: float = Field(allow_inf_nan=False)
    mac_share: Share
    mac_share_p95: Share
    accuracy: Accuracy
    same_as_full: Share


class BudgetCurve(_Model):
    """Budgets by rising gate offset, measured on images that training did not see.

    Attributes:
        images: how many.
        rows: from the least that the network can spend to every block executed.
    """

    images: int = Field(gt=0)
    rows: tuple[Budget, ...] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        offsets = [row.gate_offset for row in self.rows]
        if offsets != sorted(set(offsets)):
            raise ValueError("the gate offsets of the budgets do not rise")
        return self

    @property
    def least(self) -> float:
        """The smallest mean share of the multiply-accumulates that can be had."""
        return min(row.mac_share for row in self.rows)

    def within(self, mac_share: float) -> Budget | None:
        """The row with the largest gate offset of those that spend at most this share, mean; None where none does."""
        return next((row for row in reversed(self.rows) if row.mac_share <= mac_share), None)

    def at_least(self, accuracy: float) -> Budget | None:
        """The row that spends least of those with this accuracy; None where none has it."""
        return min(
            (row for row in self.rows if row.accuracy.value >= accuracy), key=lambda row: row.mac_share, default=None
        )
