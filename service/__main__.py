"""The command line: serve over HTTP, or classify images right here.

python -m service [serve] [--port 8000 ...]
python -m service classify IMAGE_OR_FOLDER...
python -m service key NAME
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError, Manifest
from service.access.key_file import KeyFile
from service.access.keys import KeyFileError, KeySource, make_key
from service.engine.errors import EngineError
from service.http.listening import taken_path, taken_port
from service.images.workers import begin_pool
from service.observability.logs import logged
from service.observability.opening import open_tracing
from service.repository.folder import default_model
from service.settings import OF_A_MODEL, Settings, add_flags, read_settings

if TYPE_CHECKING:  # its packages need not be installed
    from service.observability.tracing import Tracing

_log = logging.getLogger("service")

_ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that end the program. A server that has started has its own way to heed them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "serve")
    parsed = vars(_parser().parse_args(arguments))
    try:
        status = _run(parsed.pop("command"), parsed)
        sys.stdout.flush()  # a reader who has left would else be found out when nothing can be done about it
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
    except ValidationError as error:
        for problem in error.errors():
            print(f"error: {'.'.join(map(str, problem['loc']))}: {problem['msg']}", file=sys.stderr)
    except (ArtifactError, EngineError, KeyFileError, SettingsError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 1


def _run(command: str, rest: dict[str, Any]) -> int:
    if command == "key":
        return _make_key(rest["name"])
    own = {name: rest.pop(name) for name in ("images", "top_k", "json") if name in rest}
    settings = read_settings({name: value for name, value in rest.items() if value is not None})
    if command == "serve":
        return _serve_logged(settings)
    # Imported here so that the service need not wait for it.
    from service.classify.command import classify_files

    return classify_files(settings, own["images"], own["top_k"], as_json=own["json"])


def _serve_logged(settings: Settings) -> int:
    """Serve, and log what keeps the server from starting like everything else."""
    with logged(settings.log_format, settings.log_level):
        try:
            return _serve(settings)
        except (ArtifactError, EngineError, SettingsError) as error:
            _log.error("%s", " ".join(str(error).split()))
            return 1


def _serve(settings: Settings) -> int:
    keys = KeyFile(settings.api_keys) if settings.api_keys else None
    folder, manifest = default_model(settings)
    tracing = open_tracing(settings)
    if settings.metrics_port:
        with taken_port([settings.metrics_host], settings.metrics_port):
            pass  # the application takes it again, when it is too late to say briefly that it cannot
    if settings.grpc_port:
        with taken_port(settings.host, settings.grpc_port):
            pass  # as above
    with taken_port(settings.host, settings.port) as ports, taken_path(settings.admin_socket) as paths:
        return _serve_on([*ports, *paths], settings, folder, manifest, keys, tracing)


def _serve_on(
    listeners: list[socket.socket],
    settings: Settings,
    folder: Path,
    manifest: Manifest,
    keys: KeySource | None,
    tracing: Tracing | None,
) -> int:
    """Open the model, and serve when that is done."""
    wait_for_pool = begin_pool(settings, folder, manifest)
    # Imported while the worker opens the model: together they take most of the time to the first answer.
    from service.app import create_app
    from service.http.server import HttpServer

    app = create_app(settings, wait_for_pool(), keys, tracing)
    return 0 if HttpServer(app, app.context, app.turns).run(listeners) else 1


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
    add_flags(serve)
    classify = commands.add_parser("classify", help="classify image files and draw the path each one took")
    classify.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a file, or a folder, whose files are taken in order"
    )
    classify.add_argument(
        "--top-k", type=_positive, default=3, metavar="N", help="how many predictions to tell (default: %(default)s)"
    )
    classify.add_argument(
        "--json", action="store_true", help="tell an object a line, as in /classify/batch (default: a drawing)"
    )
    add_flags(classify, OF_A_MODEL)
    key = commands.add_parser("key", help="make an API key")
    key.add_argument("name", metavar="NAME", help="whose it is, for logs and metrics")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _end(number: int, _: object) -> None:
    """End the program at once, which has accepted nothing that is left to finish; its workers end when it is gone.

    An exception would be lost where Python is called from C.
    """
    os._exit(128 + number)  # as shells have it


if __name__ == "__main__":
    for each in _ENDING:
        signal.signal(each, _end)
    sys.exit(main())
