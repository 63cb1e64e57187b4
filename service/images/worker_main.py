"""What a worker process runs: image files in, outcomes out.

The service starts it: python -m service.images.worker_main SOCKET [DEVICE] LOG, all of them file descriptors.
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
from service.engine.devices.client import DeviceClient, RemoteRuntime
from service.engine.errors import RuntimeUnavailable
from service.engine.ipc.handshake import Opened
from service.engine.runtimes.base import Runtime, description
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
    service, *device, log_to = map(int, sys.argv[1:])
    with ExitStack() as stack:
        connection = stack.enter_context(socket.socket(fileno=service))
        log = stack.enter_context(os.fdopen(log_to, "w", encoding="utf-8", errors="backslashreplace"))
        client = DeviceClient(stack.enter_context(socket.socket(fileno=device[0]))) if device else None

        def open_models(options: dict[str, Any]) -> list[OpenModel]:
            settings = Settings(**options["settings"])
            stack.enter_context(logged(settings.log_format, settings.log_level, log))
            decoders: dict[Preprocessing, BoundedDecoder] = {}
            return [_open(settings, model, decoders, client, tunes=options["tune"]) for model in options["models"]]

        serve(connection, open_models, IMAGE_ERRORS)


def _open(
    settings: Settings,
    model: dict[str, Any],
    decoders: dict[Preprocessing, BoundedDecoder],
    client: DeviceClient | None,
    tunes: bool,
) -> OpenModel:
    """Open a model as the settings say, and measure how it is best run where that is asked for.

    Models that want their images alike share a decoder, which is a process.
    """
    folder, expected = Path(model["folder"]), Manifest.model_validate(model["manifest"])
    decoder = decoders.get(expected.preprocessing)
    if decoder is None:  # its process starts while the model is opened
        decoder = decoders[expected.preprocessing] = bounded_decoder(settings, expected)
    remembered = chosen_before(folder, read_manifest(folder), settings.precision, settings.cache)
    runtime = _opened(settings, folder, client)
    if runtime.manifest != expected:
        raise ArtifactError(f"the model in {folder} has changed since the service opened it")
    tuning = None
    if tunes:
        tuning = tune(runtime, read_probes(folder, runtime.manifest).images, settings.policy_wishes)
    first = bool(runtime.candidates) and not remembered
    if isinstance(runtime, RemoteRuntime):  # the device normalises pixels by the way
        worker = LocalWorker(runtime, decoder.pixels, prepare_dear=decoder.pixels_of_dear, prepares_pixels=True)
    else:
        worker = LocalWorker(runtime, decoder.decode, prepare_dear=decoder.decode_dear)
    return OpenModel(model["number"], Opened(description(runtime), tuning, first), worker)


def _opened(settings: Settings, folder: Path, client: DeviceClient | None) -> Runtime:
    """The runtime on the device, or on the CPU where the device cannot run the model and need not."""
    if client is not None:
        try:
            return client.open(folder, settings.runtime, settings.precision, settings.cache)
        except RuntimeUnavailable:  # the device's process has logged why
            if settings.device != "auto":
                raise
    return open_runtime(folder, settings.runtime, "cpu", settings.precision, settings.cache)


if __name__ == "__main__":
    main()
