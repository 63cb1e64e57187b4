"""What every route needs, made once when the service starts."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from artifact.manifest import Manifest
from service.classify.answer import AnswerWriter
from service.classify.body_budget import BodyBudget
from service.classify.budgets import Budgets
from service.classify.rechecking import Rechecks
from service.engine.engine import Engine
from service.images.costs import DecodingCosts
from service.observability.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """The running service: its settings, its engine (which takes image files), what it tells, holds and has learnt."""

    settings: Settings
    engine: Engine
    metrics: Metrics
    memory: BodyBudget
    writer: AnswerWriter
    costs: DecodingCosts
    budgets: Budgets
    rechecks: Rechecks

    @property
    def manifest(self) -> Manifest:
        """Of the model that is served."""
        return self.engine.pool.manifest


def context(request: Request) -> Context:
    """The context of the app a request came to."""
    found: Context = request.app.state.context
    return found
