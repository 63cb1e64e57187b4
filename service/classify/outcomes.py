"""What became of a request's images, noted in its record and counted."""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.errors import EngineError
from service.engine.job import Outcome
from service.errors import error_type
from service.images.decoding import ImageError
from service.observability.model_metrics import ModelMetrics
from service.observability.record import RequestRecord


def note_outcomes(outcomes: Sequence[Outcome], record: RequestRecord, metrics: ModelMetrics) -> None:
    """Note what became of every image of a request."""
    record.images = [error_type(outcome) if isinstance(outcome, Exception) else outcome for outcome in outcomes]
    for image in record.images:
        if isinstance(image, str):
            metrics.count_failed_image(image)
        else:
            metrics.count_answer(image)


def note_unreceived(error: Exception, metrics: ModelMetrics) -> None:
    """Note why a request's images were not received; what its form or its client did is no image's fault."""
    if isinstance(error, ImageError | EngineError):
        metrics.count_failed_image(error_type(error))
