"""A dataset classified on a Ray cluster: `python -m service classify-dataset ... --ray ADDRESS`, by Ray Data.

The process on the command line holds the folder of answers, knows what is missing there, and tells the progress. Actors
on the machines of the cluster classify: each has the engine of the single process, reads its share of the input itself,
and writes parts into the same folder. Through Ray go only numbers of shares and counts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from deploy.ray_classifier import WHOLE, Asked, Classifier, part_count
from service.dataset.command import Assignment, Options, fill, open_assignment
from service.dataset.items import DatasetError
from service.dataset.output import Finished, Output, Tally, remove_unfinished
from service.dataset.progress import Progress
from service.observability.logs import logged
from service.settings import Settings

# Kinds of input with a single source, in which any part can be reached without reading those before it.
_CUT = ("files", "list")
_CONNECT_S = 5.0


def classify_on_ray(settings: Settings, inputs: Sequence[str], folder: Path, options: Options, address: str) -> int:
    """Classify a dataset into a folder by a cluster, or go on with it; return the exit status.

    Args:
        settings: of the service; `workers` are those of an actor, which asks Ray for so many CPUs.
        inputs: the input; all machines see it, as they do the model and the folder.
        folder: of the answers.
        options: what else is asked for.
        address: of the cluster, as `ray.init` takes it.

    Raises:
        ArtifactError: the model cannot be run.
        DatasetError: the input, the output, an option or the cluster cannot be used, or an actor could not do its work.
    """
    if len(settings.cuda_devices) > 1:
        raise DatasetError("an actor has one GPU, and Ray chooses it: --device cuda")
    model, device = settings.model.absolute(), "cuda" if settings.device_kind == "cuda" else "cpu"
    settings = settings.model_copy(update={"model": model, "device": device})
    inputs, folder = [str(Path(each).absolute()) for each in inputs], folder.absolute()
    assignment = open_assignment(settings, inputs, options)

    def classify_shares(output: Output) -> tuple[bool, Tally]:
        todo = list(_shares(assignment, output))
        complete = True
        if todo:
            with _cluster(address):
                workers = settings.workers or _cpus(settings.device)
                told = settings.model_copy(update={"workers": workers})
                asked = Asked(told, inputs, folder, options, assignment.identity)
                complete = asyncio.run(_until_done(_results(asked, todo), assignment, output, todo))
        remove_unfinished(folder)
        there = Output(folder, assignment.identity)  # whatever was lost on the way, this is what there is
        if complete and any(_shares(assignment, there)):
            raise DatasetError(f"parts are missing in {folder}; all machines have to write into the same folder")
        return complete, there.tally

    with logged(settings.log_format, settings.log_level):
        return fill(folder, assignment, classify_shares)


def _shares(assignment: Assignment, output: Output) -> Iterator[dict[str, int]]:
    """What is missing: parts of a folder or a list, or else sources, which have to be read from their beginning."""
    if assignment.dataset.kind in _CUT:
        there = output.finished.get(0, Finished()).chunks
        yield from ({"source": 0, "part": part} for part in range(part_count(assignment)) if part not in there)
        return
    for number in range(len(assignment.dataset.sources)):
        if output.finished.get(number, Finished()).next_missing(0) is not None:
            yield {"source": number, "part": WHOLE}


def _results(asked: Asked, todo: Sequence[dict[str, int]]) -> Iterator[dict[str, Any]]:
    """What comes of shares, as it comes. Each is a block, which Ray gives to an actor, again if that is lost."""
    cpus, gpus = asked.settings.workers or 1, int(asked.settings.device == "cuda")
    room = sum(int(min(each["CPU"] // cpus, each["GPU"] if gpus else math.inf)) for each in _machines())
    if not room:
        print(f"no machine of the cluster has {cpus} CPUs{' and a GPU' * gpus}; waiting for one", file=sys.stderr)
    shares = ray.data.from_items(list(todo), override_num_blocks=len(todo))
    results = shares.map(
        Classifier,
        fn_constructor_args=[asked],
        compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=max(1, min(room, len(todo)))),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    return iter(results.iter_rows())


async def _until_done(
    results: Iterator[dict[str, Any]], assignment: Assignment, output: Output, todo: Sequence[dict[str, int]]
) -> bool:
    """Take all results and tell the progress; say whether all is done, or the process was asked to end before."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    sizes = [source.size for source in assignment.dataset.sources]
    images, left = output.tally.images, sum(sizes[share["source"]] for share in todo)
    told: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()

    def tell(each: dict[str, Any] | BaseException | None) -> None:
        loop.call_soon_threadsafe(told.put_nowait, each)

    Thread(target=_take, args=(results, tell), daemon=True).start()
    try:
        # The share by sizes is asked for where the number of images is not known, and shares are whole sources.
        with Progress(lambda: images, lambda: 1 - left / (sum(sizes) or 1)).told(assignment.dataset.images):
            while (result := await told.get()) is not None:
                if isinstance(result, BaseException):
                    raise DatasetError(
                        f"Ray has given up: {_first_line(result)} Its logs say more; the same command goes on"
                    ) from result
                if result["error"]:
                    raise DatasetError(result["error"])
                images += result["images"]
                left -= sizes[result["source"]]
    except asyncio.CancelledError:
        return False
    return True


def _take(results: Iterator[dict[str, Any]], tell: Callable[[dict[str, Any] | BaseException | None], object]) -> None:
    """Tell of every result, and then of the end, in a thread that waits for Ray."""
    end: BaseException | None = None
    try:
        for result in results:
            tell(result)
    except BaseException as error:
        end = error
    with suppress(RuntimeError):  # nobody listens any more
        tell(end)


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Be connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of one that is started here
    # It has much to say of itself, and progress is told otherwise.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        _require_answer(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise DatasetError(f"--ray {address}: {_first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Return unless there is a machine and a port in an address at which nothing answers: Ray tries it for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), _CONNECT_S).close()


def _machines() -> list[dict[str, float]]:
    """What each machine of the cluster has, of those that have CPUs."""
    machines = [{"CPU": 0, "GPU": 0} | node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [machine for machine in machines if machine["CPU"]]


def _cpus(device: str) -> int:
    """As many as any machine has, or has for each GPU: so there is room for an actor on all."""
    if device == "cuda":
        each = [machine["CPU"] // machine["GPU"] for machine in _machines() if machine["GPU"]]
    else:
        each = [machine["CPU"] for machine in _machines()]
    return max(1, int(min(each, default=1)))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
