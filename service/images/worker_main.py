"""What a worker process runs: image files in, outcomes out.

The service starts it: python -m service.worker SOCKET LOG, both file descriptors.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from typing import Any

from artifact.manifest import ArtifactError, Manifest, read_manifest
from artifact.probes import read_probes
from service.engine.ipc.handshake import Opened
from service.engine.runtimes.base import description
from service.engine.runtimes.selection import chosen_before, open_runtime
from service.engine.runtimes.tuning import tune
from service.engine.workers.child import serve
from service.engine.workers.local import LocalWorker
from service.images.bounded_decoder import bounded_decoder
from service.images.decoding import IMAGE_ERRORS
from service.observability.logs import logged
from service.settings import Settings


def main() -> None:
    """Serve the socket, and log to the other."""
    # Whoever stops the service, by keyboard or by process group, lets it finish what it accepted: then it hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with ExitStack() as stack:
        connection = stack.enter_context(socket.socket(fileno=int(sys.argv[1])))
        log = stack.enter_context(os.fdopen(int(sys.argv[2]), "w", encoding="utf-8", errors="backslashreplace"))

        def open_worker(options: dict[str, Any]) -> tuple[Opened, Manifest, LocalWorker]:
            settings = Settings(**options["settings"])
            stack.enter_context(logged(settings.log_format, settings.log_level, log))
            return _open(settings, Manifest.model_validate(options["manifest"]), tunes=options["tune"])

        serve(connection, open_worker, IMAGE_ERRORS)


def _open(settings: Settings, expected: Manifest, tunes: bool) -> tuple[Opened, Manifest, LocalWorker]:
    """Open the model as the settings say, and measure how it is best run where that is asked for."""
    decoder = bounded_decoder(settings, expected)  # whose process starts meanwhile
    remembered = chosen_before(settings.model, read_manifest(settings.model), settings.precision, settings.cache)
    runtime = open_runtime(settings.model, settings.runtime, settings.device, settings.precision, settings.cache)
    manifest = runtime.manifest
    if manifest != expected:
        raise ArtifactError(f"the model in {settings.model} has changed since the service started")
    tuning = None
    if tunes:
        tuning = tune(runtime, read_probes(settings.model, manifest).images, settings.policy_wishes)
    first = bool(runtime.candidates) and not remembered
    worker = LocalWorker(runtime, decoder.decode, prepare_dear=decoder.decode_dear)
    return Opened(description(runtime), tuning, first), manifest, worker


if __name__ == "__main__":
    main()
