"""The HTTP routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from service.access import account_of
from service.accounts import Account
from service.context import Context, context
from service.deadlines import HEADER, Deadline, deadline_of, upload_timeout
from service.direct_route import DirectRoute
from service.engine.errors import EngineStopped, Overloaded
from service.engine.request import PendingRequest
from service.engine.worker import Answer, Outcome
from service.errors import ClientGone, classify_error, error_type
from service.images import FORMATS
from service.metrics import CONTENT_TYPE
from service.outcomes import note_outcomes, note_unreceived
from service.request_record import record_of
from service.schemas import (
    BatchClassification,
    BatchItem,
    Choices,
    Classification,
    ClassifyParameters,
    EngineDescription,
    ErrorResponse,
    Limits,
    ModelDescription,
    Status,
)
from service.uploads import Upload, read_image, read_images
from service.waiting import Answers

router = APIRouter()
metrics_router = APIRouter()
images = APIRouter(route_class=DirectRoute, tags=["images"])

UploadT = TypeVar("UploadT", Upload, list[Upload])

Served = Annotated[Context, Depends(context)]
Parameters = Annotated[ClassifyParameters, Query()]

_ID_HEADER = {"X-Request-ID": {"description": "of this request, in the server's log too", "schema": {"type": "string"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description, "headers": _ID_HEADER}
    for status, description in {
        400: "empty or malformed body",
        408: "the body did not arrive within the deadline",
        413: "too many bytes or pixels",
        415: "not an image, or a wrong content type",
        422: "damaged image, or unknown or invalid parameters or fields",
        429: "too much is asked for, by everybody or by this API key; Retry-After says when to come back",
        500: "the model could not be run on this image",
        503: "the service is stopping",
        504: "not answered within the deadline",
    }.items()
}
_ERRORS[429]["headers"] = {
    **_ID_HEADER,
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds to wait"},
}
_RESPONSES = {200: {"headers": _ID_HEADER}, **_ERRORS}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a multipart body with one field."""
    properties = {field: schema}
    return {
        "schema": {"type": "object", "required": [field], "properties": properties, "additionalProperties": False},
        "encoding": {field: {"contentType": "image/jpeg, image/png, image/webp, image/bmp, image/gif, image/tiff"}},
    }


_TIMEOUT = {
    "name": HEADER,
    "in": "header",
    "description": "the longest time an answer is worth waiting for, in ms; the server's own limit holds as well",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_FILE = {"type": "string", "format": "binary"}
_IMAGE_BODY = {
    "parameters": [_TIMEOUT],
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _form("file", _FILE), "image/*": {"schema": _FILE}},
    },
}
_IMAGES_BODY = {
    "parameters": [_TIMEOUT],
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _form("files", {"type": "array", "items": _FILE, "minItems": 1})},
    },
}


@images.post(
    "/classify",
    summary="Classify one image",
    response_model=Classification,
    responses=_RESPONSES,
    openapi_extra=_IMAGE_BODY,
)
async def classify(request: Request, served: Served, parameters: Parameters) -> Response:
    """Classify one image, sent as the multipart field `file` or as the raw body."""
    arrived = time.perf_counter()
    deadline = deadline_of(request, arrived, served.settings.deadline_ms)
    with served.memory.share() as held:
        reading = read_image(request, served.settings.max_bytes, held)
        upload = await _received(request, served, deadline, reading)
        (outcome,) = await _classify(request, served, deadline, [upload])
    if isinstance(outcome, Exception):
        raise outcome
    return _json(_written(served, parameters, outcome, arrived))


@images.post(
    "/classify/batch",
    summary="Classify several images",
    response_model=BatchClassification,
    responses=_RESPONSES,
    openapi_extra=_IMAGES_BODY,
)
async def classify_batch(request: Request, served: Served, parameters: Parameters) -> Response:
    """Classify several images, sent as multipart fields named `files`; an answer or an error for each, in order."""
    arrived = time.perf_counter()
    settings = served.settings
    deadline = deadline_of(request, arrived, settings.deadline_ms)
    with served.memory.share() as held:
        reading = read_images(request, settings.max_bytes, settings.max_images, held)
        uploads = await _received(request, served, deadline, reading)
        outcomes = await _classify(request, served, deadline, uploads)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded | EngineStopped)]
    if len(refused) == len(outcomes):
        raise refused[0]
    items = []
    for upload, outcome in zip(uploads, outcomes, strict=True):
        if isinstance(outcome, Exception):
            items.append(BatchItem(filename=upload.filename, error=classify_error(outcome)[1]))
        else:
            answer: Any = orjson.Fragment(_written(served, parameters, outcome, arrived))
            items.append(BatchItem(filename=upload.filename, answer=answer))
    return _json(orjson.dumps(BatchClassification(results=items)))


@router.get("/model", tags=["model"], summary="Describe the model")
async def model(served: Served) -> ModelDescription:
    """The model that is served, how it is run, and what it accepts."""
    manifest, settings, runtime = served.manifest, served.settings, served.engine.pool.runtime
    tuning = served.engine.pool.tuning
    described = manifest.model_dump(include=set(ModelDescription.model_fields) & set(type(manifest).model_fields))
    engine = EngineDescription(
        runtime=runtime.name,
        device=runtime.device,
        precision=runtime.precision,
        workers=tuning.policy.workers,
        max_batch=tuning.policy.max_batch,
        max_wait_ms=tuning.policy.max_wait_ms,
        queue_size=served.engine.queue_capacity,
        chosen=Choices(
            runtime="measured" if runtime.candidates else "set",
            workers=tuning.workers,
            max_batch=tuning.max_batch,
            max_wait_ms=tuning.max_wait_ms,
        ),
        candidates=list(runtime.candidates),
    )
    limits = Limits(
        formats=list(FORMATS),
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
        max_images=settings.max_images,
        deadline_ms=settings.deadline_ms,
    )
    return ModelDescription(**described, engine=engine, limits=limits)


@router.get("/healthz", tags=["operations"], summary="Is the process alive?", response_model_exclude_none=True)
async def healthz() -> Status:
    """Whether the process answers at all."""
    return Status(status="alive")


@router.get(
    "/readyz",
    tags=["operations"],
    summary="Are images taken?",
    response_model=Status,
    responses={503: {"model": Status}},
    response_model_exclude_none=True,
)
async def readyz(served: Served, response: Response) -> Status:
    """Whether images are taken and can be expected to be answered.

    Not while the service starts or stops, when no worker is alive, when the last inferences failed, or when images have
    been refused for a while.
    """
    problem = served.engine.problem
    if problem is None:
        return Status(status="ready")
    response.status_code = 503
    return Status(status="not ready", reason=problem)


@metrics_router.get(
    "/metrics",
    tags=["operations"],
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(served: Served) -> Response:
    """Metrics in Prometheus's text format."""
    return Response(served.metrics.render(), media_type=CONTENT_TYPE)


async def _received(
    request: Request, served: Context, deadline: Deadline, reading: Coroutine[Any, Any, UploadT]
) -> UploadT:
    """Receive the images of one request, unless they would be refused anyway or come too slowly."""
    try:
        served.engine.require_room()
        if account := account_of(request):
            account.require()
        async with asyncio.timeout(deadline.remaining_s):
            return await reading
    except TimeoutError as error:
        raise upload_timeout() from error
    except asyncio.CancelledError as given_up:
        note_unreceived(EngineStopped(), served.metrics)
        raise _stopped() from given_up
    except Exception as error:
        note_unreceived(error, served.metrics)
        raise
    finally:
        reading.close()  # where it was never begun


async def _classify(request: Request, served: Context, deadline: Deadline, uploads: list[Upload]) -> list[Outcome]:
    """Run the images of one request and count what became of each."""
    deadline_s = deadline.remaining_s
    if account := account_of(request):
        account.take(len(uploads))
    record = record_of(request)
    record.submitted_at = time.perf_counter()
    answers = Answers(len(uploads))
    pending: list[PendingRequest[bytes, Answer]] = []
    for place, upload in enumerate(uploads):
        try:
            follows = bool(pending)  # a request is let in as a whole, as far as there is any room
            pending.append(served.engine.submit(upload.data, deadline_s, _noting(answers, place, account), follows))
        except (Overloaded, EngineStopped) as error:
            answers.note(place, error)
    try:
        outcomes = await answers.wait(request, pending, deadline_s)
    except ClientGone as error:
        for _ in uploads:
            served.metrics.count_failed_image(error_type(error))
        raise
    except asyncio.CancelledError as given_up:
        for _ in uploads:
            served.metrics.count_failed_image(error_type(EngineStopped()))
        raise _stopped() from given_up
    note_outcomes(outcomes, record, served.metrics)
    return outcomes


def _stopped() -> EngineStopped:
    """What to answer where the server, which stops, has lost its patience and cancelled this task."""
    if task := asyncio.current_task():
        task.uncancel()
    return EngineStopped()


def _noting(answers: Answers, place: int, account: Account | None) -> Callable[[Outcome], None]:
    """What to do with the outcome of one image, also where nobody waits for it any more."""

    def note(outcome: Outcome) -> None:
        answers.note(place, outcome)
        if account:
            account.charge(outcome)

    return note


def _written(served: Context, parameters: ClassifyParameters, answer: Answer, arrived: float) -> bytes:
    return served.writer.write(answer, parameters.top_k, parameters.graph, time.perf_counter() - arrived)


def _json(body: bytes) -> Response:
    """The body as it is: FastAPI would otherwise validate and convert what this service has made itself."""
    return Response(body, media_type="application/json")
