"""What the service answers. Fields that a newer service adds are ignored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One class and its softmax probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRun:
    """What happened to one block for this image.

    Attributes:
        kind: "residual", or "network" where the next network of a cascade begins.
        margin: of its gate, which is open above the model's threshold; None without a gate, or if it was not asked.
        gate_probability: sigmoid of the margin.
        macs: multiply-accumulates, spent if it was executed and saved otherwise.
    """

    name: str
    kind: str
    stage: int
    executed: bool
    gated: bool
    margin: float | None
    gate_probability: float | None
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A connection that the image's features took, by node name."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceGraph:
    """The image's path through the network."""

    blocks: list[BlockRun]
    edges: list[Edge]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Blocks executed and skipped, counted and named."""

    executed: int
    skipped: int
    total: int
    skipped_names: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Multiply-accumulates spent on this image, of those with every block executed.

    Attributes:
        budget, max_latency_ms: what was asked for.
        gate_offset: what was added to the margins.
        degraded: whether less was spent than asked for, because the service had too much to do.
    """

    macs: int
    total_macs: int
    ratio: float
    budget: float | None
    max_latency_ms: float | None
    gate_offset: float
    degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """Which model answered."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds: decoding and preprocessing, waiting in the queue, running the model, and all of it."""

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The answer for one image.

    Attributes:
        inference_graph: None unless `graph` was "full".
        layers: None if `graph` was "none".
    """

    predictions: list[Prediction]
    inference_graph: InferenceGraph | None = None
    layers: Layers | None = None
    compute: Compute
    model: ModelName
    timing_ms: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """What went wrong with one image of a batch: `type` for programs, `message` for people."""

    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """The answer or the error for one image of a batch."""

    filename: str | None
    answer: Classification | None = None
    error: ErrorDetail | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchClassification:
    """The answers of a batch, in the order of its images."""

    results: list[BatchItem]
