"""What every route needs, made once when the service starts."""

from __future__ import annotations

from dataclasses import dataclass

from artifact.manifest import Manifest
from service.classify.answer import AnswerWriter
from service.classify.body_budget import BodyBudget
from service.classify.budgets import Budgets
from service.classify.rechecking import Rechecks
from service.engine.engine import Engine
from service.images.costs import DecodingCosts
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """A model of the running service, with what it shares with the others.

    Attributes:
        settings: of the service.
        engine: of the model; it takes image files.
        metrics: of the service.
        counts: metrics of the model.
        memory: of all request bodies.
        writer: of the model's answers.
        costs: what decoding takes, as far as it has been seen.
        budgets: that the model's images may have.
        rechecks: of its degraded answers.
    """

    settings: Settings
    engine: Engine
    metrics: Metrics
    counts: ModelMetrics
    memory: BodyBudget
    writer: AnswerWriter
    costs: DecodingCosts
    budgets: Budgets
    rechecks: Rechecks

    @property
    def manifest(self) -> Manifest:
        """Of the model that is served."""
        return self.engine.model.manifest
