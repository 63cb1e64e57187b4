"""The command line: serve over HTTP, or classify images right here, a few or millions.

python -m service [serve] [--port 8000 ...]
python -m service classify IMAGE_OR_FOLDER...
python -m service classify-dataset INPUT... FOLDER
python -m service key NAME
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError
from service.access.keys import KeyFileError, make_key
from service.classify.numbers import number_in
from service.dataset.items import DatasetError
from service.engine.errors import EngineError
from service.frontends.division import front_end_count
from service.serving import end_at_once_on_signals, serve
from service.settings import OF_A_DATASET, OF_A_MODEL, Settings, add_flags, read_settings

_OF_RAY = ("pandas", "pyarrow", "ray", "tqdm")  # what a dataset on a cluster needs
_MOST_ROWS = 1_000_000
"""In a part of a dataset."""


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
    except (ArtifactError, DatasetError, EngineError, KeyFileError, SettingsError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 1


def _run(command: str, rest: dict[str, Any]) -> int:
    if command == "key":
        return _make_key(rest["name"])
    own = {name: rest.pop(name) for name in [*rest] if name not in Settings.model_fields}
    settings = read_settings({name: value for name, value in rest.items() if value is not None})
    if command == "serve":
        return _serve(settings)
    # Imported here so that the service need not wait for it.
    if command == "classify-dataset":
        return _classify_dataset(settings, own.pop("inputs"), own.pop("folder"), own)
    from service.classify.command import classify_files

    return classify_files(settings, own["images"], own["top_k"], as_json=own["json"])


def _classify_dataset(settings: Settings, inputs: list[str], folder: Path, options: dict[str, Any]) -> int:
    address = options.pop("ray")
    needed, extras = (("pyarrow", "tqdm"), "offline") if address is None else (_OF_RAY, "offline,ray")
    if missing := [name for name in needed if find_spec(name) is None]:
        raise DatasetError(f"classify-dataset needs {' and '.join(missing)}: pip install '.[{extras}]'")
    from service.dataset.command import Options, classify_dataset

    if address is None:
        return classify_dataset(settings, inputs, folder, Options(**options))
    from deploy.ray_dataset import classify_on_ray

    return classify_on_ray(settings, inputs, folder, Options(**options), address)


def _serve(settings: Settings) -> int:
    count = front_end_count(settings)
    if count == 1:
        return serve(settings)
    from service.frontends.parent import serve_front_ends  # one server has no need of it

    return serve_front_ends(settings, count)


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
    _add_dataset_flags(
        commands.add_parser("classify-dataset", help="classify any number of images into a folder of Parquet files")
    )
    key = commands.add_parser("key", help="make an API key")
    key.add_argument("name", metavar="NAME", help="whose it is, for logs and metrics")
    return parser


def _add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a folder of images, tar files or Parquet files, such files, or a list of paths (.txt)",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the answers; what it lacks is added")
    cost = parser.add_mutually_exclusive_group()
    cost.add_argument(
        "--budget", type=_share, help="largest mean share of the multiply-accumulates (default: gates as trained)"
    )
    cost.add_argument("--gate-offset", type=_finite, help="added to the margin of every gate (default: 0)")
    parser.add_argument(
        "--top-k", type=_positive, default=5, metavar="N", help="how many predictions to tell (default: %(default)s)"
    )
    parser.add_argument(
        "--order",
        choices=("input", "completion"),
        default="input",
        help="rows of a part as in the input, or as they were done (default: %(default)s)",
    )
    parser.add_argument(
        "--rows-per-part",
        type=_rows_of_a_part,
        default=4096,
        metavar="N",
        help="most rows of a Parquet file; a run that goes on begins with a whole one (default: %(default)s)",
    )
    parser.add_argument("--image-column", metavar="NAME", help="of Parquet files (default: called as usual)")
    parser.add_argument("--name-column", metavar="NAME", help="of Parquet files (default: called as usual)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="do it on a Ray cluster: host:port, auto, or local for one of this machine alone",
    )
    add_flags(parser, OF_A_DATASET)


def _share(text: str) -> float:
    share = _finite(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 1")
    return share


def _finite(text: str) -> float:
    if not math.isfinite(number := number_in(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _rows_of_a_part(text: str) -> int:
    """Some parts are held in memory, with room for all of their rows."""
    if (rows := _positive(text)) > _MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {_MOST_ROWS:,}")
    return rows


if __name__ == "__main__":
    end_at_once_on_signals()
    sys.exit(main())
