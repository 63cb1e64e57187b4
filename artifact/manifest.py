"""The manifest: what a client or a server needs to know about an exported model, and proof that its files are whole."""

from __future__ import annotations

import hashlib
import stat
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from artifact.budgets import BudgetCurve
from artifact.gating import Gating
from artifact.preprocessing import Preprocessing

MANIFEST_NAME = "manifest.json"
ONNX_NAME = "model.onnx"
TORCHSCRIPT_NAME = "model.ts"
INT8_NAME = "model.int8.onnx"
PROBES_NAME = "probes.npz"

# Names of the inputs and outputs of the exported graphs, in order.
INPUT_NAMES = ("images", "gate_offset")
OUTPUT_NAMES = ("logits", "margins")

# Gate offsets that no margin outweighs: with these every gate is open, or closed.
ALWAYS, NEVER = 1e4, -1e4

# In bytes: far more than any network and as many class names as there may be take.
_LARGEST_MANIFEST = 4_194_304


class ArtifactError(ValueError):
    """The folder is not a complete, undamaged artifact that this version reads."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Block(_Model):
    """One residual block, or, in a cascade, the beginning of the next network.

    Attributes:
        name: unique in the model.
        kind: "network" where a network of a cascade begins.
        stage: from 1, counted through all networks of a cascade.
        gated: whether a gate decides about it; an ungated block runs wherever it is reached.
        macs: multiply-accumulates of the residual branch for one image, which is what skipping saves; of a network that
            begins here, those of its stem and classifier.
        shortcut_macs: of the shortcut's projection, which runs wherever it is reached; 0 where the shortcut is the
            identity.
        gate_macs: of the gate, likewise; 0 without a gate, and of the gate before a network, which only compares.
        within: name of the block that begins the network it belongs to, and without which it is not reached; None in
            the first network.
    """

    name: str
    kind: Literal["residual", "network"] = "residual"
    stage: int = Field(ge=1)
    gated: bool
    macs: int = Field(ge=0)
    shortcut_macs: int = Field(ge=0)
    gate_macs: int = Field(ge=0)
    within: str | None = None


class Member(_Model):
    """One network of a cascade.

    Attributes:
        folder: of its own artifact, in that of the cascade.
        sure_above: how far apart the two largest logits so far have to be for an image not to need it, see
            `artifact.cascade`; None for the first.
    """

    folder: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sure_above: float | None = Field(default=None, allow_inf_nan=False)


class Verification(_Model):
    """What the export measured when it compared the artifact with the network it came from.

    Attributes:
        images: how many were compared.
        generated_images: whether they were generated, for want of real ones.
        margin_tolerance: gates had to agree wherever a margin was farther than this from the threshold; relative to
            the gate's largest margin in the batch where that is above 1.
        logit_tolerance: largest difference of a logit allowed along the same path; relative likewise.
        gates_compared: gate decisions compared, over all runtimes and scenarios.
        gates_within_tolerance: decisions too close to the threshold to be compared.
        largest_margin_difference: seen between any runtime and eager execution, relative likewise.
        largest_logit_difference: likewise, along the same path.
    """

    images: int
    generated_images: bool = False
    margin_tolerance: float
    logit_tolerance: float
    gates_compared: int
    gates_within_tolerance: int
    largest_margin_difference: float
    largest_logit_difference: float


class Int8Agreement(_Model):
    """How well the int8 graph agrees with the network it came from, gates as trained.

    Attributes:
        images: how many were compared; none of them was calibrated on.
        calibration_images: how many the ranges of its tensors were measured on.
        gates_compared: gate decisions compared, of each image up to and including the first that differs.
        gates_equal: share of these that are the network's, 1 without gates.
        predictions_equal: share of the images with the network's prediction.
    """

    images: int = Field(gt=0)
    calibration_images: int = Field(gt=0)
    gates_compared: int
    gates_equal: float
    predictions_equal: float


class ExecutionProfile(_Model):
    """How often each block ran for real images, gates as trained: what a server's own rates are held against.

    Attributes:
        images: how many ran through the network.
        rates: execution rate of each block, 1 for those without a gate.
    """

    images: int = Field(gt=0)
    rates: tuple[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)], ...]


class Manifest(_Model):
    """An exported model.

    The graphs take `images` (N, 3, H, W) float32 and `gate_offset` (N,) float32, 0 where not given, and return
    `logits` (N, classes) and `margins` (N, G), G being the number of gated blocks. A gate is open exactly when
    margin + gate_offset > gate_threshold, in float32; where it is not reached, its margin is 0. The int8 graph takes
    and returns the same for one image, N = 1.

    A cascade is networks of which each runs only on the images that those before it are not sure of, see
    `artifact.cascade`. Its folder has an artifact of each of them besides its own graphs.

    Attributes:
        format: version of this layout.
        name, version: of the model.
        labels: class names in the order of the logits.
        preprocessing: from a decoded image to one row of `images`.
        input_size: H and W, in pixels.
        blocks: in the order they run; the gated ones among them in the order of the margins.
        gate_threshold: see above.
        stem_macs, classifier_macs: multiply-accumulates outside the blocks, for one image.
        total_macs: with every block executed, gates included.
        ungated_macs: of the same network without gates, the yardstick for what skipping saves.
        files: SHA-256 of every file of the artifact, in hexadecimal.
        source_digest: SHA-256 of the checkpoint it was exported from.
        verification: how the export proved itself.
        int8: how well the int8 graph agrees; None where there is none.
        profile: how often each block runs; None where the export had too few real images to tell.
        budgets: what it does with other gate offsets; None without gates, or where the export knew no images to tell.
        members: the networks of a cascade, in the order they run; empty for a single network.
    """

    format: int = Field(default=1, ge=1, le=1)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    labels: tuple[str, ...] = Field(min_length=2, max_length=65_536)
    preprocessing: Preprocessing
    input_size: int = Field(gt=0, le=16_384)
    blocks: tuple[Block, ...] = Field(min_length=1)
    gate_threshold: float = Field(default=0.0, allow_inf_nan=False)
    stem_macs: int = Field(ge=0)
    classifier_macs: int = Field(ge=0)
    total_macs: int = Field(gt=0, lt=2**62)
    ungated_macs: int = Field(gt=0)
    files: dict[str, str]
    source_digest: str
    verification: Verification
    int8: Int8Agreement | None = None
    profile: ExecutionProfile | None = None
    budgets: BudgetCurve | None = None
    members: tuple[Member, ...] = ()

    @model_validator(mode="after")
    def _nests(self) -> Self:
        begun: list[str | None] = [None]
        for block in self.blocks:
            if block.within != begun[-1]:
                raise ValueError(f"{block.name} is within {block.within}, but follows the beginning of {begun[-1]}")
            if block.kind == "network":
                if not block.gated:
                    raise ValueError(f"{block.name} begins a network, but no gate decides about it")
                begun.append(block.name)
        if len(self.members) == 1 or len(begun) != max(1, len(self.members)):
            raise ValueError(f"{len(begun)} networks begin among the blocks, and {len(self.members)} are named")
        if any((member.sure_above is None) != (number == 0) for number, member in enumerate(self.members)):
            raise ValueError("sure_above is of each network but the first")
        return self

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if len({block.name for block in self.blocks}) != len(self.blocks):
            raise ValueError("two blocks have the same name")
        if self.input_size != self.preprocessing.crop:
            raise ValueError("input_size and preprocessing.crop differ")
        shortcuts_and_residuals = sum(block.macs + block.shortcut_macs for block in self.blocks)
        ungated = self.stem_macs + self.classifier_macs + shortcuts_and_residuals
        if self.ungated_macs != ungated or self.total_macs != ungated + sum(block.gate_macs for block in self.blocks):
            raise ValueError("the MACs of the parts do not add up to the totals")
        return self

    @model_validator(mode="after")
    def _profiles_its_blocks(self) -> Self:
        rates = self.profile.rates if self.profile else None
        if rates is not None and len(rates) != len(self.blocks):
            raise ValueError("the profile has another number of blocks")
        outermost = [not block.gated and block.within is None for block in self.blocks]
        if any(rate != 1 for always, rate in zip(outermost, rates or (), strict=False) if always):
            raise ValueError("a block without a gate always runs: its execution rate is 1")
        return self

    @model_validator(mode="after")
    def _can_spend_its_budgets(self) -> Self:
        if self.budgets is None:
            return self
        # Not the one that is kept, which a copy with other blocks would have too.
        gating = Gating.of_blocks(self.blocks, self.stem_macs + self.classifier_macs, self.gate_threshold)
        closed = gating.executed(np.zeros((1, gating.gated.size), np.bool_))
        least = float(gating.spent_macs(closed)[0]) / self.total_macs
        for row in self.budgets.rows:
            # Other sums round in another way.
            if row.mac_share < least - 1e-6 or (row.gate_offset >= ALWAYS and row.mac_share < 1 - 1e-6):
                raise ValueError(f"no image spends {row.mac_share:g} with the gate offset {row.gate_offset:g}")
        return self

    @cached_property
    def gated_indices(self) -> list[int]:
        """Positions of the gated blocks among all blocks, in the order of the margins."""
        return [index for index, block in enumerate(self.blocks) if block.gated]

    @cached_property
    def networks_of_gates(self) -> list[int]:
        """Position of the block that begins the network each gate is in; -1 for those in the first, (G,)."""
        outer: list[int] = self.gating.within[self.gating.gated].tolist()
        return outer

    @cached_property
    def gating(self) -> Gating:
        """Its gates, and what they decide about."""
        return Gating.of_blocks(self.blocks, self.stem_macs + self.classifier_macs, self.gate_threshold)

    @cached_property
    def expected_macs(self) -> float | None:
        """Mean multiply-accumulates of an image by the profile; None without one."""
        if self.profile is None:
            return None
        return self.total_macs - float((1 - np.array(self.profile.rates)) @ self.gating.skippable_macs)

    def executed(self, margins: npt.NDArray[np.float32], offsets: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Which blocks the graph ran, (N, B), from its margins (N, G) and the gate offsets it was given (N,)."""
        return self.gating.executed(self.gating.opened(margins, offsets))

    def spent_macs(self, executed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Multiply-accumulates spent on each image, (N,), from what was executed (N, B)."""
        return self.gating.spent_macs(executed)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the artifact in `folder`."""
    content = manifest.model_dump_json(indent=2, exclude_none=True)
    (folder / MANIFEST_NAME).write_text(content + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the artifact in `folder`.

    Raises:
        ArtifactError: it is missing or not a manifest this version reads.
    """
    path = folder / MANIFEST_NAME
    try:
        told = path.stat()
        if not stat.S_ISREG(told.st_mode) or told.st_size > _LARGEST_MANIFEST:
            raise ArtifactError(f"{path} is not a manifest: it is no file, or has more than {_LARGEST_MANIFEST} bytes")
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"no artifact in {folder}: {_remedy(folder) or error.strerror or error}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path} is not a valid manifest: {error}") from error


def _remedy(path: Path) -> str | None:
    """What was probably meant, where something else than an artifact's folder was named."""
    if path.is_file() and (path.parent / MANIFEST_NAME).is_file():
        return f"it is a file of one; name the folder {path.parent}"
    if path.suffix == ".safetensors" or any(path.glob("*.safetensors")):
        return "it is a checkpoint; export it first, with python -m export CHECKPOINT --out DIR"
    found = sorted(file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{MANIFEST_NAME}"))
    if found:
        several = f"{len(found)} of them" if len(found) > 1 else "one"
        return f"there is {several} below it; name {' or '.join(map(str, found[:3]))}"
    return None if path.is_dir() else "there is no such folder"


def verified_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """The path of one of the artifact's files, after checking its digest.

    Raises:
        ArtifactError: the artifact has no such file, or its content is not what was exported.
    """
    path = folder / name
    if name not in manifest.files:
        raise ArtifactError(f"the artifact in {folder} has no {name}")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    if file_digest(path) != manifest.files[name]:
        raise ArtifactError(f"{path} is damaged: its SHA-256 is not the manifest's")
    return path
