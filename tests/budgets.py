"""Budgets of a network that was never measured."""

from __future__ import annotations

from artifact.budgets import Accuracy, Budget, BudgetCurve


def budget(offset: float, share: float, accuracy: float) -> Budget:
    return Budget(
        gate_offset=offset,
        mac_share=share,
        mac_share_p95=min(1.0, share + 0.1),
        accuracy=Accuracy(value=accuracy, low=accuracy - 0.01, high=accuracy + 0.01),
        same_as_full=min(1.0, accuracy + 0.1),
    )


BUDGETS = BudgetCurve(
    images=1000,
    rows=(budget(-1e4, 0.3, 0.7), budget(-1.0, 0.5, 0.85), budget(0.0, 0.7, 0.88), budget(1e4, 1.0, 0.89)),
)
