"""What a worker process runs: image files in, outcomes out.

The service starts it: python -m service.worker SOCKET LOG, both file descriptors.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from artifact.manifest import ArtifactError, Manifest, read_manifest
from artifact.preprocessing import Preprocessing
from artifact.probes import read_probes
from service.engine.ipc.handshake import Opened
from service.engine.runtimes.base import description
from service.engine.runtimes.selection import chosen_before, open_runtime
from service.engine.runtimes.tuning import tune
from service.engine.workers.child import OpenModel, serve
from service.engine.workers.local import LocalWorker
from service.images.bounded_decoder import BoundedDecoder, bounded_decoder
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

        def open_models(options: dict[str, Any]) -> list[OpenModel]:
            settings = Settings(**options["settings"])
            stack.enter_context(logged(settings.log_format, settings.log_level, log))
            decoders: dict[Preprocessing, BoundedDecoder] = {}
            return [_open(settings, model, decoders, tunes=options["tune"]) for model in options["models"]]

        serve(connection, open_models, IMAGE_ERRORS)


def _open(
    settings: Settings, model: dict[str, Any], decoders: dict[Preprocessing, BoundedDecoder], tunes: bool
) -> OpenModel:
    """Open a model as the settings say, and measure how it is best run where that is asked for.

    Models that want their images alike share a decoder, which is a process.
    """
    folder, expected = Path(model["folder"]), Manifest.model_validate(model["manifest"])
    decoder = decoders.get(expected.preprocessing)
    if decoder is None:  # its process starts while the model is opened
        decoder = decoders[expected.preprocessing] = bounded_decoder(settings, expected)
    remembered = chosen_before(folder, read_manifest(folder), settings.precision, settings.cache)
    runtime = open_runtime(folder, settings.runtime, settings.device, settings.precision, settings.cache)
    if runtime.manifest != expected:
        raise ArtifactError(f"the model in {folder} has changed since the service opened it")
    tuning = None
    if tunes:
        tuning = tune(runtime, read_probes(folder, runtime.manifest).images, settings.policy_wishes)
    first = bool(runtime.candidates) and not remembered
    worker = LocalWorker(runtime, decoder.decode, prepare_dear=decoder.decode_dear)
    return OpenModel(model["number"], Opened(description(runtime), tuning, first), worker)


if __name__ == "__main__":
    main()
