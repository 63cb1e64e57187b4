"""The JSON of every request and answer.

What is sent for every image are plain dataclasses, and dicts where there are many of them: they cost a fraction of a
validated model to make and to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType, TypedDict  # Pydantic needs them from there before Python 3.12

from artifact.budgets import Budget
from artifact.manifest import Block, ExecutionProfile
from artifact.preprocessing import Preprocessing
from service.engine.runtimes.base import Candidate
from service.engine.runtimes.tuning import Source
from service.errors import ErrorDetail

# Named, so that programs generated from the OpenAPI document have one type of each.
GraphDetail = TypeAliasType("GraphDetail", Literal["full", "summary", "none"])
Degrade = TypeAliasType("Degrade", Literal["allow", "never"])


class ClassifyParameters(BaseModel):
    """Query parameters of the classify routes; others are refused."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(default=5, ge=1, le=1000, description="how many predictions to return, best first")
    graph: GraphDetail = Field(
        default="full",
        description="full: every block and edge; summary: only the layer counts and names; none: neither",
    )
    budget: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="largest share of the model's multiply-accumulates to spend on an image, mean over many images; "
        "`/model` has the `budgets` there are (default: the service's own)",
    )
    max_latency_ms: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="spend no more than what lets inference end so many ms after the request's arrival, as far as the "
        "service can tell; the smallest budget where none does (default: no limit)",
    )
    degrade: Degrade = Field(
        default="allow",
        description="allow: under overload the answer may be one of a smaller budget, and says so; never: not this",
    )


@dataclass(slots=True, kw_only=True)
class Prediction:
    """One class and its softmax probability."""

    label: str
    index: int
    probability: float


class BlockRun(TypedDict):
    """What happened to one block for this image.

    An ungated block always runs and has neither margin nor gate probability. A gate is open, and its block executed,
    when the margin is above the model's gate threshold (0 unless `/model` says otherwise); `gate_probability` is the
    sigmoid of the margin. `macs` are those of the residual branch: spent if executed, else saved.

    In a cascade a block of the kind `network` stands for the beginning of the next network, with the `macs` of its stem
    and classifier. If that network is not asked, the gates in it have neither margin nor gate probability.
    """

    name: str
    kind: Literal["residual", "network"]
    stage: int
    executed: bool
    gated: bool
    margin: float | None
    gate_probability: float | None
    macs: int


class Edge(TypedDict):
    """A connection the image's features really took, by node name."""

    source: str
    target: str


@dataclass(slots=True, kw_only=True)
class InferenceGraph:
    """This image's path. Nodes are `input`, `stem`, executed blocks, `<block>.shortcut` and `classifier`.

    Each network of a cascade is a chain from `input` to `classifier`, which averages what they say.
    A skipped block is not a node. If its shortcut is a projection, `<block>.shortcut` is a node.
    """

    blocks: list[BlockRun]
    edges: list[Edge]


@dataclass(slots=True, kw_only=True)
class Layers:
    """Blocks executed and skipped, counted and named."""

    executed: int
    skipped: int
    total: int
    skipped_names: list[str]


@dataclass(slots=True, kw_only=True)
class Compute:
    """Multiply-accumulates spent on this image, of those with every block executed.

    `budget` and `max_latency_ms` are what was asked for; `gate_offset` is what was added to the margins. `degraded`
    says that this was less than asked for, because the service had too much to do.
    """

    macs: int
    total_macs: int
    ratio: float
    budget: float | None
    max_latency_ms: float | None
    gate_offset: float
    degraded: bool


@dataclass(slots=True, kw_only=True)
class ModelName:
    """Which model answered."""

    name: str
    version: str


@dataclass(slots=True, kw_only=True)
class Timing:
    """Milliseconds: decoding and preprocessing, waiting in the queue, running the model, and all of it."""

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(slots=True, kw_only=True)
class Classification:
    """The answer for one image; `inference_graph` and `layers` as far as the `graph` parameter asked for them."""

    predictions: list[Prediction]
    inference_graph: InferenceGraph | None = None
    layers: Layers | None = None
    compute: Compute
    model: ModelName
    timing_ms: Timing


@dataclass(slots=True, kw_only=True)
class BatchItem:
    """The answer or the error for one image of a batch, in the order they were sent."""

    filename: str | None
    answer: Classification | None = None
    error: ErrorDetail | None = None


@dataclass(slots=True, kw_only=True)
class BatchClassification:
    """The answers of a batch."""

    results: list[BatchItem]


class Choices(BaseModel):
    """Where each choice comes from: "set" by the operator, "measured" on this machine, or "fixed"."""

    runtime: Source
    workers: Source
    max_batch: Source
    max_wait_ms: Source


class EngineDescription(BaseModel):
    """How the service runs the model, and what it was chosen from.

    `candidates` are the runtimes tried at the first opening on this machine, with the median time of one image on one
    thread, or why one could not be used; none where the operator set the runtime or it runs on a GPU.
    """

    runtime: str
    device: str
    precision: str
    workers: int
    max_batch: int
    max_wait_ms: float
    queue_size: int
    chosen: Choices
    candidates: list[Candidate]


class Limits(BaseModel):
    """What the service accepts."""

    formats: list[str]
    max_bytes: int
    max_pixels: int
    max_images: int
    deadline_ms: float


class ModelDescription(BaseModel):
    """What a client needs to know of the model and the server that runs it."""

    name: str
    version: str
    labels: list[str]
    input_size: int
    preprocessing: Preprocessing
    gate_threshold: float
    blocks: list[Block]
    stem_macs: int
    classifier_macs: int
    total_macs: int
    ungated_macs: int
    source_digest: str
    profile: ExecutionProfile | None
    budgets: list[Budget]
    engine: EngineDescription
    limits: Limits


class ListedModel(BaseModel):
    """A version of a model.

    `reason` tells why it failed to be loaded; one that was served before goes on then. `default` says whether it
    answers requests that name no model; `labels` is how many classes it tells apart.
    """

    name: str
    version: str
    state: Literal["loading", "ready", "failed"]
    reason: str | None
    default: bool
    ready: bool
    labels: int | None
    input_size: int | None


class ModelList(BaseModel):
    """All of them."""

    models: list[ListedModel]


class Status(BaseModel):
    """Health and readiness.

    Attributes:
        status: "alive", "ready" or "not ready".
        reason: why it is not ready.
    """

    status: str
    reason: str | None = None
