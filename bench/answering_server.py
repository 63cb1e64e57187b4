"""The service without inference: what a worker is given, it answers at once. So the event loop is all that takes time.

    python -m bench.answering_server MODEL

Its worker is none of a process, so that what the loop spends on those, some microseconds an image, is left out too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from artifact.manifest import Manifest, read_manifest
from service.app import create_app
from service.engine.job import Answer, Answered, ImageJob, Outcome
from service.engine.runtimes.base import RuntimeDescription
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers.pool import Model, WorkerPool
from service.http.listening import taken_port
from service.http.server import HttpServer
from service.observability.logs import logged
from service.settings import Settings


class AnsweringWorker:
    """See `Worker`. It answers every image alike, with every block executed.

    Args:
        manifest: of the model that it is asked to run.
    """

    pid: int | None = None
    alive = True

    def __init__(self, manifest: Manifest) -> None:
        gates = sum(block.gated for block in manifest.blocks)
        executed = (True,) * len(manifest.blocks)
        logits = (1.0,) + (0.0,) * (len(manifest.labels) - 1)
        self._answer: Outcome = Answer(logits, (1.0,) * gates, executed, manifest.total_macs, 1, 1e-4, 0.0, 1e-3)
        self._answered: Answered = lambda _: None

    def start(self) -> None:
        """Do nothing."""

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:  # noqa: ARG002 (it never is)
        """Begin."""
        self._answered = answered

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        """Answer a batch in the loop's next turn."""
        asyncio.get_running_loop().call_soon(self._answered, [self._answer] * len(jobs))
        return True

    def check(self, model: int, batch_size: int) -> bool:  # noqa: ARG002 (all are alike)
        """Find nothing wrong."""
        asyncio.get_running_loop().call_soon(self._answered, [])
        return True

    def abort(self) -> None:
        """Do nothing."""

    def disconnect(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def main() -> None:
    """Serve until a signal comes, on a port that the first line on stdout tells."""
    folder = Path(sys.argv[1])
    manifest = read_manifest(folder)
    settings = Settings(workers=1, max_batch=1, max_wait_ms=0, objective_ms=1e6, log_level="warning")
    model = Model(0, folder, manifest, RuntimeDescription("none", "cpu", "fp32"), Tuning(BatchPolicy(1, 1, 0.0)))
    app = create_app(settings, WorkerPool(model, [AnsweringWorker(manifest)]))
    with logged(settings.log_format, settings.log_level), taken_port(["127.0.0.1"], 0) as listeners:
        server = HttpServer(app, app.context, app.turns, lambda: print(listeners[0].getsockname()[1], flush=True))
        server.run(listeners)


if __name__ == "__main__":
    main()
