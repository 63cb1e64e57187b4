"""What the service tells of its models. Fields that a newer service adds are ignored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A version of a model.

    Attributes:
        state: "loading", "ready", or "failed" where it could not be loaded.
        reason: why it failed; what was served before goes on then.
        default: whether it answers requests that name no model.
        labels: how many classes it tells apart, where it is served.
        input_size: side of the network's input, in pixels, where it is served.
    """

    name: str
    version: str
    state: str
    reason: str | None
    default: bool
    ready: bool
    labels: int | None
    input_size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """All of them."""

    models: list[ListedModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input: shorter side resized, centre cropped, each channel normalised."""

    resize: int
    crop: int
    interpolation: str
    mean: list[float]
    std: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One residual block, or, in a cascade, the beginning of the next network.

    Attributes:
        macs: multiply-accumulates that skipping it saves.
        shortcut_macs, gate_macs: of what runs wherever the block is reached.
        within: name of the block that begins the network it belongs to; None in the first network.
    """

    name: str
    kind: str
    stage: int
    gated: bool
    macs: int
    shortcut_macs: int
    gate_macs: int
    within: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionProfile:
    """How often each block ran at export, for so many images."""

    images: int
    rates: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Share of the images classified correctly, with its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What was measured with one gate offset.

    Attributes:
        mac_share, mac_share_p95: of the multiply-accumulates that an image takes, mean and 95th percentile.
        same_as_full: share of the images whose prediction is that of the whole network.
    """

    gate_offset: float
    mac_share: float
    mac_share_p95: float
    accuracy: Accuracy
    same_as_full: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Where each choice comes from: "set" by the operator, "measured" on the machine, or "fixed"."""

    runtime: str
    workers: str
    max_batch: str
    max_wait_ms: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A runtime that was tried: the median time of one image, or why it could not be used."""

    runtime: str
    precision: str
    image_ms: float | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """How the service runs the model, and what it was chosen from."""

    runtime: str
    device: str
    precision: str
    workers: int
    max_batch: int
    max_wait_ms: float
    queue_size: int
    chosen: Choices
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the service accepts."""

    formats: list[str]
    max_bytes: int
    max_pixels: int
    max_images: int
    deadline_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What a client needs to know of a model and of the server that runs it.

    Attributes:
        budgets: that can be asked for, by rising gate offset; empty if there are none.
        profile: None if the export did not measure it.
    """

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
