"""Settings, read once from flags and environment (AIG_…), then frozen and passed down."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from artifact.formats import FORMATS, READABLE_FORMATS, USUAL_FORMATS
from service.engine.runtimes.base import Device, Precision, RuntimeName
from service.engine.runtimes.tuning import PolicyWishes

LogFormat = Literal["text", "json"]

MOST_GRPC_CONNECTIONS = 256
"""That there may be at a time, in each front end; others are closed."""

WORKERS_A_FRONT_END = 16
"""That one event loop has no trouble to keep busy."""

# Pillow itself warns of images above this many pixels.
_PILLOW_LIMIT = 89_478_485

# As browsers send them: in lower case, without the port that goes without saying.
_ORIGIN = re.compile(
    r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9]\d{0,4})?"
)


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _require_origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "*" and not _ORIGIN.fullmatch(value):
            said = "Input should be * or origins as browsers send them, such as https://a.example:8443, not {value}"
            raise PydanticCustomError("origin", said, {"value": repr(value)})
    return values


_Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_require_origins)]


def _require_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+(,\d+)*)?", value):
        said = "Input should be auto, cpu, cuda, or cuda with numbers of devices, as cuda:0,1"
        raise PydanticCustomError("device", said)
    return value


def _upper(value: object) -> object:
    split = _split(value)
    return tuple(map(str.upper, split)) if isinstance(split, tuple) else split


def _weights(value: object) -> object:
    split = _split(value)
    return dict(part.partition("=")[::2] for part in split) if isinstance(split, tuple) else split


def _require_formats(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in FORMATS:
            said = "Input should be some of {formats}, not {value}"
            raise PydanticCustomError("format", said, {"formats": ", ".join(FORMATS), "value": repr(value)})
        if value not in READABLE_FORMATS:
            said = "Input should be without {value}, which needs a package of its own: pip install '.[heif]'"
            raise PydanticCustomError("format", said, {"value": value})
    return tuple(dict.fromkeys(values))


_Formats = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_upper), Field(min_length=1), AfterValidator(_require_formats)
]
_Weights = Annotated[dict[str, Annotated[float, Field(gt=0, le=1000)]], NoDecode, BeforeValidator(_weights)]
_Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
_Device = Annotated[str, AfterValidator(_require_device)]
_RootPath = Annotated[str, Field(pattern=r"^(/[0-9A-Za-z_~-][0-9A-Za-z._~-]*)*$")]


class Settings(BaseSettings):
    """Every setting of the service. A flag wins over its environment variable, which wins over the default.

    The field `queue_size`, for example, is the flag --queue-size and the variable AIG_QUEUE_SIZE.
    """

    model_config = SettingsConfigDict(env_prefix="AIG_", frozen=True, extra="forbid", allow_inf_nan=False)

    model: Path = Field(
        default=Path("model_repository/convnet-aig-38-cifar10/1"), description="folder of the exported model"
    )
    model_repository: Path | None = Field(
        default=None,
        description="folder of <name>/<version>/ folders, all of which are served; --model counts for nothing then "
        "(default: only --model is served)",
    )
    default_model: str | None = Field(
        default=None,
        description="name of the model that answers where a request names none (default: the first in the folder)",
    )
    watch_models: Literal["off", "on"] = Field(
        default="off", description="on follows what changes in --model-repository; its package is `watchfiles`"
    )
    max_models: int = Field(default=16, ge=1, description="most versions of models served at a time")
    model_weights: _Weights = Field(
        default={},
        description="parts of the workers' time, such as large=2,small=1, where several models want some (default: 1)",
    )
    admin_socket: Path | None = Field(
        default=None,
        description="path of a Unix socket at which models are loaded and unloaded without a key (default: none)",
    )
    host: _Hosts = Field(default=("127.0.0.1",), description="addresses to listen on, separated by commas")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    runtime: RuntimeName = Field(
        default="auto",
        description="how the model is run: auto takes the fastest that proves right on this machine, compiled makes "
        "machine code, onnx is ONNX Runtime, int8 is ONNX Runtime in whole numbers, which changes answers a little, "
        "openvino and torchscript need packages of their own",
    )
    precision: Precision = Field(default="fp32", description="lowest precision that auto may choose")
    cache: Path | None = Field(
        default=None,
        description="folder for compiled code and measurements of this machine (default: beside the model)",
    )
    device: _Device = Field(
        default="auto",
        description="cpu, cuda, or cuda:0,1 for several devices; auto takes CUDA where it works, else the CPU",
    )
    workers: int | None = Field(default=None, ge=1, description="inference processes (default: measured)")
    frontends: int | None = Field(
        default=None,
        ge=1,
        description="server processes that share the port, the workers and the limits (default: one for every "
        f"{WORKERS_A_FRONT_END} workers or cores, at least one; one with --api-keys and on GPUs)",
    )
    max_batch: int | None = Field(default=None, ge=1, description="most images run together (default: measured)")
    max_wait_ms: float | None = Field(
        default=None, ge=0, description="longest wait for a batch to fill, in ms (default: 0; measured on a GPU)"
    )
    queue_size: int = Field(default=128, ge=1, description="images that may wait; more are refused with 429")
    root_path: _RootPath = Field(
        default="",
        description="path below which a proxy shows the service, such as /aig; X-Forwarded-Prefix wins (default: none)",
    )
    max_connections: int = Field(default=2048, ge=1, description="most connections open at a time")
    max_connections_per_address: int | None = Field(
        default=None, ge=1, description="most of them from one address (default: half)"
    )
    default_budget: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the model's multiply-accumulates to spend on an image, mean, unless a request says "
        "(default: gates as trained)",
    )
    objective_ms: float | None = Field(
        default=None,
        gt=0,
        description="time in the queue and the worker within which an answer is worth most, in ms; what would take "
        "longer is refused (default: three times the 99th percentile without load, measured)",
    )
    least_budget: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="smallest budget that images are limited to, before any is refused (default: none is limited)",
    )
    least_accuracy: float | None = Field(
        default=None, gt=0, le=1, description="the same, told as the accuracy that the export measured (default: none)"
    )
    recheck_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of the answers with a limited budget that are run again in full when there is time, and "
        "compared",
    )
    deadline_ms: float = Field(default=10_000, gt=0, description="longest time to answer an image, in ms")
    max_bytes: int = Field(default=20_000_000, gt=0, description="largest image file, in bytes")
    max_pixels: int = Field(default=50_000_000, gt=0, le=_PILLOW_LIMIT, description="largest image, in pixels")
    formats: _Formats = Field(
        default=USUAL_FORMATS, description=f"image formats to read, separated by commas, of {', '.join(FORMATS)}"
    )
    max_decode_ms: float = Field(default=1000, ge=10, description="most processor time to decode an image, in ms")
    max_decode_mb: int = Field(default=512, ge=16, description="most memory to decode an image, in MB")
    max_pending_bytes: int = Field(
        default=512_000_000, gt=0, description="most bytes of request bodies held at a time; more are refused with 429"
    )
    max_images: int = Field(default=32, ge=1, description="most images in one /classify/batch")
    isolation: Literal["process", "thread"] = Field(
        default="process",
        description="workers are processes, replaced when they die or hang, or threads, which take less memory",
    )
    stuck_seconds: float = Field(
        default=10, gt=0, description="longest time a worker may take for a batch before it is replaced, in s"
    )
    drain_seconds: float = Field(default=30, ge=0, description="time to finish accepted work on SIGTERM, in s")
    api_keys: Path | None = Field(
        default=None,
        description="file of API keys, made with `python -m service key`, and read again when it changes "
        "(default: no key is asked for)",
    )
    cors_origins: _Origins = Field(
        default=(), description="origins whose pages may call the service, separated by commas (default: none)"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address of --metrics-port")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="port for /metrics alone; 0 serves it on --port")
    grpc_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="port for the Open Inference Protocol over gRPC, on the same addresses; 0 does not serve it",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level that is logged"
    )
    log_format: LogFormat = Field(default="text", description="json writes one object per line")
    access_log: Literal["auto", "on", "off"] = Field(
        default="auto", description="a log line for every request; auto: with json, or at debug"
    )
    tracing: Literal["off", "otlp"] = Field(
        default="off", description="where spans of requests go; the standard OTEL_... variables say the rest"
    )

    @property
    def device_kind(self) -> Device:
        """What `device` names, without numbers."""
        kind = self.device.partition(":")[0]
        return "cuda" if kind == "cuda" else "cpu" if kind == "cpu" else "auto"

    @property
    def cuda_devices(self) -> tuple[int, ...]:
        """The devices that are asked for by name."""
        kind, _, numbers = self.device.partition(":")
        if kind != "cuda":
            return ()
        return tuple(dict.fromkeys(int(number) for number in numbers.split(","))) if numbers else (0,)

    @property
    def policy_wishes(self) -> PolicyWishes:
        """What is set of how batches form."""
        return PolicyWishes(self.workers, self.max_batch, self.max_wait_ms)

    @property
    def logs_requests(self) -> bool:
        """Whether every request gets a line in the log."""
        if self.access_log == "auto":
            return self.log_format == "json" or self.log_level == "debug"
        return self.access_log == "on"


OF_A_MODEL = (
    "model",
    "runtime",
    "precision",
    "cache",
    "device",
    "default_budget",
    "deadline_ms",
    "max_bytes",
    "max_pixels",
    "formats",
    "max_decode_ms",
    "max_decode_mb",
)
"""The settings that matter where images are classified without a server."""

OF_A_DATASET = (
    *(name for name in OF_A_MODEL if name not in ("default_budget", "deadline_ms")),
    "workers",
    "max_batch",
    "isolation",
    "stuck_seconds",
    "log_level",
)
"""Those that matter where a dataset is classified."""

# Of the compose file and of the benchmarks.
_OTHER_VARIABLES = {"AIG_BENCH_MODEL", "AIG_CPUS", "AIG_MEMORY"}


def share(total: int, number: int, count: int) -> int:
    """Part `number` of a limit, as even as can be; all `count` parts together are the limit."""
    return total // count + (number < total % count)


def read_settings(flags: dict[str, Any] | None = None) -> Settings:
    """The settings that these flags, by field, and the environment say.

    Raises:
        SettingsError: the environment has a variable AIG_... that nothing reads.
        ValidationError: a value cannot be.
    """
    known = {f"AIG_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    for variable in sorted(os.environ):
        if variable.upper().startswith("AIG_") and variable.upper() not in known:
            nearest = get_close_matches(variable.upper(), sorted(known), n=1)
            remedy = f"is it {nearest[0]}?" if nearest else "python -m service serve --help lists the settings"
            raise SettingsError(f"there is no setting for the environment variable {variable}: {remedy}")
    return Settings(**(flags or {}))


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] = tuple(Settings.model_fields)) -> None:
    """Add a flag for each of these settings; what it is given is checked when the settings are read."""
    for name in names:
        field = Settings.model_fields[name]
        told = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        default = "" if told in (None, "", {}) else f" (default: {told})"
        values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            help=f"{field.description}{default}",
            metavar=f"{{{','.join(values)}}}" if values else None,
        )
