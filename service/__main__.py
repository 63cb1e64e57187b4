"""The command line: serve over HTTP, or classify images right here.

python -m service [serve] [--port 8000 ...]
python -m service classify IMAGE...
python -m service key NAME
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError, Manifest, read_manifest
from artifact.probes import read_probes
from service.engine.errors import EngineError
from service.engine.pool import WorkerPool, local_pool, process_pool
from service.engine.request import Job
from service.engine.runtime import Runtime, open_runtime
from service.engine.tuning import tune
from service.engine.wire import OutcomeCodec
from service.engine.worker import Answer, LocalWorker
from service.engine.worker_process import WorkerProcess
from service.images import IMAGE_ERRORS, ImageDecoder, ImageError
from service.keys import KeyFileError, Keyring, make_key, read_keys
from service.listening import Server, taken_port
from service.logs import logged
from service.settings import Settings

if TYPE_CHECKING:  # its packages need not be installed
    from service.tracing import Tracing

_log = logging.getLogger("service")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in ("serve", "classify", "key", "-h", "--help"):
        arguments.insert(0, "serve")
    parsed = vars(_parser().parse_args(arguments))
    try:
        status = _run(parsed.pop("command"), parsed.pop("images", []), parsed)
        sys.stdout.flush()  # a reader who has left would else be found out when nothing can be done about it
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
    except ValidationError as error:
        for problem in error.errors():
            print(f"error: {'.'.join(map(str, problem['loc']))}: {problem['msg']}", file=sys.stderr)
    except (ArtifactError, EngineError, KeyFileError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 1


def _run(command: str, images: list[Path], rest: dict[str, Any]) -> int:
    if command == "key":
        return _make_key(rest["name"])
    settings = Settings(**{name: value for name, value in rest.items() if value is not None})
    return _serve_logged(settings) if command == "serve" else _classify(settings, images)


def _serve_logged(settings: Settings) -> int:
    """Serve, and log what keeps the server from starting like everything else."""
    with logged(settings.log_format, settings.log_level):
        try:
            return _serve(settings)
        except (ArtifactError, EngineError, SettingsError) as error:
            _log.error("%s", " ".join(str(error).split()))
            return 1


def _serve(settings: Settings) -> int:
    keyring = read_keys(settings.api_keys) if settings.api_keys else None
    manifest = read_manifest(settings.model)
    tracing = _open_tracing(settings, manifest)
    if settings.metrics_port:
        with taken_port(settings.metrics_host, settings.metrics_port):
            pass  # the application takes it again, when it is too late to say briefly that it cannot
    with taken_port(settings.host, settings.port) as listeners:
        return _serve_on(listeners, settings, manifest, keyring, tracing)


def _serve_on(
    listeners: list[socket.socket],
    settings: Settings,
    manifest: Manifest,
    keyring: Keyring | None,
    tracing: Tracing | None,
) -> int:
    """Open the model, and serve when that is done."""
    wait_for_pool = _begin(settings, manifest)
    # Imported while the worker opens the model: together they take most of the time to the first answer.
    import uvicorn

    from service.admission import Admission
    from service.app import create_app
    from service.http_protocol import guarded_protocol

    app = create_app(settings, wait_for_pool(), keyring, tracing)
    protocol: Any = guarded_protocol(Admission(app.state.context).guard)  # as good as a class
    # uvicorn drains on SIGTERM and then raises the signal again for the handler it found, which by default would report
    # the clean stop as a kill.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        app,
        http=protocol,
        log_level=settings.log_level,
        log_config=None,
        access_log=False,  # it would write query strings down
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        server_header=False,
        proxy_headers=False,
    )
    server = Server(config)
    with suppress(KeyboardInterrupt):  # which is raised again after the clean stop that it asked for
        server.run(listeners)
    return 0 if server.started else 1


def _begin(settings: Settings, manifest: Manifest) -> Callable[[], WorkerPool[bytes]]:
    """Begin to make the workers; the rest is done when they are asked for."""
    if settings.isolation == "thread":
        return lambda: _thread_pool(settings)
    first = _worker_process(settings, manifest)
    first.launch(tune=True)
    return lambda: process_pool(manifest, first, lambda: _worker_process(settings, manifest))


def _thread_pool(settings: Settings) -> WorkerPool[bytes]:
    runtime, worker = _local_worker(settings)
    tuning = tune(runtime, read_probes(settings.model, runtime.manifest).images, settings.policy_wishes)
    return local_pool(runtime, worker, tuning)


def _local_worker(settings: Settings) -> tuple[Runtime, LocalWorker[bytes]]:
    """The model and a worker that runs it, in this process."""
    runtime = open_runtime(settings.model, settings.runtime, settings.device, settings.precision, settings.cache)
    decoder = ImageDecoder(runtime.manifest.preprocessing, settings.max_bytes, settings.max_pixels)
    return runtime, LocalWorker(runtime, decoder.decode)


def _worker_process(settings: Settings, manifest: Manifest) -> WorkerProcess:
    """A worker, not launched yet, that serves no other model than this one."""
    options = {"settings": settings.model_dump(mode="json"), "manifest": manifest.model_dump(mode="json")}
    return WorkerProcess("service.worker", options, OutcomeCodec(manifest, IMAGE_ERRORS), settings.stuck_seconds)


def _open_tracing(settings: Settings, manifest: Manifest) -> Tracing | None:
    if settings.tracing == "off":
        return None
    try:
        from service.tracing import Tracing, otlp_provider
    except ImportError as error:
        raise SettingsError(f"tracing needs packages of its own, pip install '.[tracing]': {error}") from error
    return Tracing(otlp_provider(), manifest)


def _classify(settings: Settings, images: list[Path]) -> int:
    """Classify image files in this process and draw their paths; 1 if any could not be classified."""
    # Imported here so that the service need not wait for them.
    from service.inference_graph import describe
    from service.terminal import LEGEND, REPLACING, draw

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=REPLACING)
    runtime, worker = _local_worker(settings)
    worker.check(1)
    failed = False
    print(LEGEND)
    for path in images:
        started = time.monotonic()
        try:
            answer = _answer(worker, Job(path.read_bytes(), started, started + settings.deadline_ms / 1000))
        except (ImageError, EngineError, OSError) as error:
            failed = True
            print(f"\n{path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            continue
        described = describe(runtime.manifest, answer, 3, "full", time.monotonic() - started)
        print("\n" + draw(str(path), described, colour=sys.stdout.isatty()))
    return int(failed)


def _answer(worker: LocalWorker[bytes], job: Job[bytes]) -> Answer:
    (outcome,) = worker.work([job])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _make_key(name: str) -> int:
    """Make an API key: the key itself is shown this once, and what belongs into the file of keys does not tell it."""
    key, table = make_key(name)
    print(f"The key, which is stored nowhere:\n\n{key}\n\nFor the file of --api-keys:\n\n{table}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Serve a gated network.", epilog="Settings: serve --help"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer over HTTP (the default)")
    classify = commands.add_parser("classify", help="classify image files and draw the path each one took")
    classify.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    key = commands.add_parser("key", help="make an API key")
    key.add_argument("name", metavar="NAME", help="whose it is, for logs and metrics")
    for command in (serve, classify):
        _add_settings(command)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting; the values are checked by Settings."""
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f" (default: {field.default})"
        values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            help=f"{field.description}{default}",
            metavar=f"{{{','.join(values)}}}" if values else None,
        )


if __name__ == "__main__":
    sys.exit(main())
