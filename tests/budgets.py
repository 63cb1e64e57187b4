"""Budgets of a network that was never measured, and those of one that was."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from artifact.budgets import Accuracy, Budget, BudgetCurve
from artifact.manifest import read_manifest, write_manifest
from artifact.probes import read_probes
from service.engine.queueing.budget_limit import BudgetLimit, Step
from service.engine.runtimes.onnx import OnnxRuntime


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


def limit_all(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Have every service choose this share of `BUDGETS` for all images, where their clients allow it."""
    row = BUDGETS.within(share)
    assert row
    step = Step(row.mac_share, row.gate_offset)
    monkeypatch.setattr(BudgetLimit, "choose", lambda *_, **__: step)
    monkeypatch.setattr(BudgetLimit, "share", step.share)


def budgeted_copy(folder: Path, copy: Path, offsets: Sequence[float]) -> Path:
    """A copy of an artifact with budgets whose shares were measured on its probes; their accuracy is made up."""
    shutil.copytree(folder, copy)
    manifest = read_manifest(copy)
    probes, runtime = read_probes(copy, manifest), OnnxRuntime(copy, manifest, "cpu")
    rows = []
    for offset in offsets:
        given = np.full(len(probes), offset, np.float32)
        _, margins = runtime.run(probes.images, given)
        spent = manifest.spent_macs(manifest.executed(margins, given))
        share = float(spent.mean() / manifest.total_macs)
        rows.append(budget(offset, share, 0.8 + share / 10))
    curve = BudgetCurve(images=len(probes), rows=tuple(rows))
    write_manifest(copy, manifest.model_copy(update={"budgets": curve}))
    return copy
