"""The routes that tell of the service."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service.access.accounts import Account
from service.classify.schemas import Status
from service.errors import ApiError
from service.observability.metrics import CONTENT_TYPE
from service.repository.repository import Repository, repository

router = APIRouter()
metrics_router = APIRouter()

Served = Annotated[Repository, Depends(repository)]


@router.get(
    "/healthz",
    tags=["operations"],
    operation_id="get_health",
    summary="Is the process alive?",
    response_model_exclude_none=True,
)
async def healthz() -> Status:
    """Whether the process answers at all."""
    return Status(status="alive")


@router.get(
    "/readyz",
    tags=["operations"],
    operation_id="get_readiness",
    summary="Is the service ready for images?",
    response_model=Status,
    responses={503: {"model": Status}},
    response_model_exclude_none=True,
)
async def readyz(served: Served, response: Response) -> Status:
    """Whether images are taken and can be expected to be answered.

    Answers 503 while the service starts, loads its first models or stops, when no worker is alive, when the last
    inferences failed, or when images have been refused for a while.
    """
    problem = served.problem
    if problem is None:
        return Status(status="ready")
    response.status_code = 503
    return Status(status="not ready", reason=problem)


@metrics_router.get(
    "/metrics",
    tags=["operations"],
    operation_id="get_metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, served: Served) -> Response:
    """Metrics in Prometheus's text format."""
    account: Account | None = request.scope["state"].get("account")
    if account and not account.key.metrics:  # asked here, where it is certain which route this is
        raise ApiError(403, "forbidden", "this API key does not open /metrics")
    told = await served.whole.metrics() if served.whole else served.opening.metrics.render()
    return Response(told, media_type=CONTENT_TYPE)
