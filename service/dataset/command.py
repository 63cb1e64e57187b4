"""`classify-dataset`: from what is asked for to the summary."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvloop

from artifact.manifest import MANIFEST_NAME, Manifest, file_digest, read_manifest
from service.classify.budgets import Budgets, Plan, Wish
from service.dataset.items import Dataset, DatasetError
from service.dataset.opening import Reading, open_dataset
from service.dataset.output import Output, Tally, opened_output
from service.dataset.rows import Columns
from service.dataset.run import Work, run
from service.engine.inference_cost import InferenceCost
from service.errors import ApiError
from service.images.workers import begin_pool
from service.observability.logs import logged
from service.settings import Settings

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a run that was asked to end, as shells have it."""

# The settings that answers depend on.
_TELLING_SETTINGS = ("runtime", "precision", "max_bytes", "max_pixels", "formats", "max_decode_ms", "max_decode_mb")


@dataclass(frozen=True)
class Options:
    """What is asked for besides settings of the service.

    Attributes:
        budget, gate_offset: what the images may cost; at most one of them is given.
        top_k: how many predictions to tell.
        order: of the rows of a part.
        rows_per_part: at most; what is done anew where a run was ended in the midst of it.
        image_column, name_column: of Parquet files; None finds them.
    """

    budget: float | None = None
    gate_offset: float | None = None
    top_k: int = 5
    order: Literal["input", "completion"] = "input"
    rows_per_part: int = 4096
    image_column: str | None = None
    name_column: str | None = None


@dataclass(frozen=True)
class Assignment:
    """A dataset, and what is to come of it.

    Attributes:
        manifest: of the model.
        dataset: that is classified.
        identity: all that the answers depend on.
        columns: that they have.
        gate_offset: of all images.
        options: as asked for.
        longest_s: that decoding one image may take, in seconds.
    """

    manifest: Manifest
    dataset: Dataset
    identity: dict[str, Any]
    columns: Columns
    gate_offset: float
    options: Options
    longest_s: float

    def work(self, output: Output) -> Work:
        """What is to be done where the answers go there."""
        return Work(
            self.dataset,
            output,
            self.columns,
            self.gate_offset,
            self.options.rows_per_part,
            self.options.order == "completion",
            self.longest_s,
        )


def open_assignment(settings: Settings, inputs: Sequence[str], options: Options) -> Assignment:
    """What is asked for, from what there is of it on this machine.

    Raises:
        ArtifactError: the model cannot be run.
        DatasetError: the input or an option cannot be used.
    """
    manifest = read_manifest(settings.model)
    plan = _plan(manifest, settings, options)
    dataset = open_dataset(inputs, Reading(settings.max_bytes, options.image_column, options.name_column))
    facts = _facts(manifest, settings, options, plan)
    asked = settings.model_dump(mode="json", include=set(_TELLING_SETTINGS))
    told = {"order": options.order, "rows_per_part": options.rows_per_part, "top_k": options.top_k, **asked}
    identity = {**facts, **told, "kind_of_input": dataset.kind, "input": dataset.digest}
    columns = Columns(manifest, options.top_k, {**facts, "blocks": " ".join(block.name for block in manifest.blocks)})
    return Assignment(manifest, dataset, identity, columns, plan.gate_offset, options, settings.max_decode_ms / 1000)


def classify_dataset(settings: Settings, inputs: Sequence[str], folder: Path, options: Options) -> int:
    """Classify a dataset into a folder, or go on with it; return the exit status.

    That is 0 when every image has its row, be it one with an error, and `INTERRUPTED` where the run was asked to end.

    Raises:
        ArtifactError, EngineError: the model cannot be run.
        DatasetError, SettingsError: the input, the output or an option cannot be used.
    """
    assignment = open_assignment(settings, inputs, options)

    def classify(output: Output) -> tuple[bool, Tally]:
        pool = begin_pool(settings, settings.model, assignment.manifest)()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(pool, assignment.work(output))), output.tally

    with logged(settings.log_format, settings.log_level):
        return fill(folder, assignment, classify)


def fill(folder: Path, assignment: Assignment, classify: Callable[[Output], tuple[bool, Tally]]) -> int:
    """Have the answers come into a folder, or go on with it, and tell what came of it; return the exit status.

    Args:
        folder: of the answers.
        assignment: what they are of.
        classify: does it; says whether all is done, and what came of all images.

    Raises:
        DatasetError: the folder cannot be used.
    """
    with opened_output(folder, assignment.identity) as output:
        before, started = output.tally.images, time.monotonic()
        if before:
            print(f"{folder} has {before:,} images already; going on with the others", file=sys.stderr)
        complete, tally = classify(output)
        print(summary(tally, assignment.manifest, before, time.monotonic() - started), file=sys.stderr)
    if complete:
        return 0
    print(f"stopped before the end; the same command goes on with what {folder} does not have", file=sys.stderr)
    return INTERRUPTED


def summary(tally: Tally, manifest: Manifest, before: int, taken_s: float) -> str:
    """What came of all images, and how fast those of this run were done."""
    failed = tally.errors.total()
    kinds = ", ".join(f"{type_} {count:,}" for type_, count in tally.errors.most_common())
    lines = [f"{tally.images:,} images, {failed:,} with errors{f' ({kinds})' if failed else ''}"]
    if answered := tally.images - failed:
        lines.append(f"mean share of the multiply-accumulates: {tally.macs / answered / manifest.total_macs:.1%}")
    lines.append(f"this run: {tally.images - before:,} images, {(tally.images - before) / taken_s:,.0f} a second")
    return "\n".join(lines)


def _plan(manifest: Manifest, settings: Settings, options: Options) -> Plan:
    budgets = Budgets(manifest, settings.default_budget, InferenceCost())
    try:
        return budgets.plan(Wish(budget=options.budget, gate_offset=options.gate_offset), 0.0)
    except ApiError as error:
        raise DatasetError(f"--budget: {error}") from error


def _facts(manifest: Manifest, settings: Settings, options: Options, plan: Plan) -> dict[str, Any]:
    """What the answers are of."""
    budget = settings.default_budget if options.budget is None else options.budget
    return {
        "model_name": manifest.name,
        "model_version": manifest.version,
        "manifest_sha256": file_digest(settings.model / MANIFEST_NAME),
        "budget": "as trained" if budget is None or options.gate_offset is not None else f"{budget:g}",
        "gate_offset": f"{plan.gate_offset:g}",
    }
