"""What a model is served with: its engine, its metrics, its answers, and what all models share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.classify.answer import AnswerWriter
from service.classify.body_budget import BodyBudget
from service.classify.budgets import Budgets, limits_to
from service.classify.context import Context
from service.classify.rechecking import Rechecks
from service.engine.crew import Crew
from service.engine.engine import Engine
from service.engine.workers.pool import Model
from service.errors import NOT_THE_CLIENTS_FAULT
from service.images.costs import DecodingCosts
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from service.settings import Settings


@dataclass(frozen=True)
class Opening:
    """Makes that of each model.

    Attributes:
        settings: of the service.
        crew: runs the models.
        metrics: of the service.
        memory: of all request bodies.
        on_overload: told when an overload begins, and when it has ended.
    """

    settings: Settings
    crew: Crew
    metrics: Metrics
    memory: BodyBudget
    on_overload: Callable[[bool], None]

    def context(self, model: Model) -> Context:
        """What requests for a model are answered from, which every worker can run.

        Raises:
            SettingsError: the model cannot have the budgets that are set.
        """
        settings, manifest = self.settings, model.manifest
        steps = limits_to(manifest, settings.least_budget, settings.least_accuracy)
        counts = ModelMetrics(manifest)
        engine = Engine(
            self.crew,
            model,
            settings.queue_size,
            settings.deadline_ms / 1000,
            on_batch=counts.batch_size.observe,
            on_overload=self.on_overload,
            objective_s=None if settings.objective_ms is None else settings.objective_ms / 1000,
            steps=steps,
            weight=settings.model_weights.get(manifest.name, 1.0),
        )
        counts.start_at_zero(NOT_THE_CLIENTS_FAULT)
        counts.queue_capacity.set(engine.queue_capacity)
        counts.queue_depth.set_function(lambda: engine.queue_depth)
        counts.ready.set_function(lambda: engine.ready)
        counts.budget_limit.set_function(lambda: engine.limit.share)
        counts.objective_seconds.set_function(lambda: engine.objective.seconds)
        return Context(
            settings=settings,
            engine=engine,
            metrics=self.metrics,
            counts=counts,
            memory=self.memory,
            writer=AnswerWriter(manifest),
            costs=DecodingCosts(settings.max_decode_ms / 1000),
            budgets=Budgets(manifest, settings.default_budget, engine.cost),
            rechecks=Rechecks(engine, counts, settings.recheck_share),
        )
