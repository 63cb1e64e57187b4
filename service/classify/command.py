"""Image files classified in this process: their paths drawn for people, or one JSON object a line for programs."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path

from artifact.manifest import Manifest
from service.classify.budgets import Budgets, Plan, Wish
from service.classify.drawing import LEGEND, REPLACING, draw
from service.classify.graph import describe
from service.classify.schemas import BatchItem
from service.engine.errors import EngineError
from service.engine.inference_cost import InferenceCost
from service.engine.job import Answer, ImageJob
from service.engine.workers.local import LocalWorker
from service.errors import ErrorDetail, classify_error
from service.images.decoding import ImageError
from service.images.workers import local_worker
from service.settings import Settings


def classify_files(settings: Settings, paths: Iterable[Path], top_k: int, as_json: bool) -> int:
    """Classify files and all files in folders; return the exit status: 1 if any could not be classified, else 0.

    Args:
        settings: of the model and of images.
        paths: of files and folders.
        top_k: how many predictions to tell of each image.
        as_json: whether to tell them as `/classify/batch` does, an object a line.

    Raises:
        ArtifactError, EngineError: the model cannot be opened.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=REPLACING)
    runtime, worker = local_worker(settings, settings.model)
    plan = Budgets(runtime.manifest, settings.default_budget, InferenceCost()).plan(Wish(), 0.0)
    worker.check(1)
    if not as_json:
        print(LEGEND)
    count = failed = 0
    for path, problem in _found(paths):
        item = _told(path, problem) if problem else _classified(path, runtime.manifest, worker, settings, plan, top_k)
        count += 1
        failed += item.error is not None
        if item.error:
            print(f"{'' if as_json else chr(10)}{path}: {item.error.message}", file=sys.stderr)
        if as_json:
            print(json.dumps(asdict(item)))
        elif item.answer:
            print("\n" + draw(str(path), item.answer, colour=sys.stdout.isatty()))
    if failed:
        print(f"\n{failed} of {count} could not be classified", file=sys.stderr)
    return int(failed > 0)


def _found(paths: Iterable[Path]) -> Iterator[tuple[Path, OSError | None]]:
    """The files there are to classify, in a folder in the order of their paths, and what keeps others from being found.

    What is hidden is left out, and links to folders, which may lead round in circles, are not followed.
    """
    for path in paths:
        if not path.is_dir():
            yield path, None
            continue
        files: list[tuple[Path, OSError | None]] = []
        problems: list[OSError] = []
        for folder, subfolders, names in os.walk(path, onerror=problems.append):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            files += [(Path(folder, name), None) for name in names if not name.startswith(".")]
        files += [(Path(problem.filename), problem) for problem in problems]
        yield from sorted(files) or [(path, FileNotFoundError(errno.ENOENT, "no files in this folder"))]


def _told(path: Path, problem: OSError) -> BatchItem:
    return BatchItem(filename=str(path), error=ErrorDetail(type="unreadable", message=problem.strerror or str(problem)))


def _classified(
    path: Path, manifest: Manifest, worker: LocalWorker, settings: Settings, plan: Plan, top_k: int
) -> BatchItem:
    started = time.monotonic()
    try:
        deadline = started + settings.deadline_ms / 1000
        job = ImageJob(path.read_bytes(), started, deadline, gate_offset=plan.gate_offset)
        answer = _answer(worker, job)
    except OSError as error:
        return _told(path, error)
    except (ImageError, EngineError) as error:
        return BatchItem(filename=str(path), error=classify_error(error)[1])
    told = describe(manifest, answer, plan, top_k, "full", time.monotonic() - started)
    return BatchItem(filename=str(path), answer=told)


def _answer(worker: LocalWorker, job: ImageJob) -> Answer:
    (outcome,) = worker.work([job])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
