"""Tables made of code: settings, metrics, and the list of errors."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin

from prometheus_client import CollectorRegistry

from artifact.manifest import read_manifest
from docs.hooks.repository import ROOT
from service.access.keys import ApiKey
from service.access.metrics import KeyMetrics
from service.observability.device_metrics import DeviceMetrics
from service.observability.device_readings import Quantity, Reading
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from service.observability.process_metrics import ProcessMetrics
from service.settings import Settings


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def sentence(text: str) -> str:
    """A description that ends with a full stop, and begins with a capital letter unless that would change a value."""
    text = " ".join(text.split())
    first = text.partition(" ")[0]
    begun = text if first.endswith(":") else text[:1].upper() + text[1:]
    return begun if not text or text.endswith((".", ":")) else f"{begun}."


@cache
def error_types() -> dict[str, dict[str, Any]]:
    """Every error type, in the order of docs/errors.toml: its `status`, `when` it is sent, and what to `do`."""
    return tomllib.loads((ROOT / "docs" / "errors.toml").read_text(encoding="utf-8"))


def errors() -> str:
    """The table of errors; each has its type as its anchor."""
    rows = (
        [f'<span id="{type_}"></span>`{type_}`', str(error["status"]), error["when"], error["do"]]
        for type_, error in error_types().items()
    )
    return table(["type", "status", "when", "what to do"], rows)


def settings() -> str:
    """The table of settings: a flag, its environment variable, and what they do; each has the flag as its anchor."""
    return table(["setting", "default", "meaning"], [_setting(name) for name in Settings.model_fields])


def _setting(name: str) -> list[str]:
    field = Settings.model_fields[name]
    flag, default = name.replace("_", "-"), field.default
    told = ",".join(default) if isinstance(default, tuple) else default
    meaning = sentence(field.description or "")
    if get_origin(field.annotation) is Literal:
        meaning += f" One of {', '.join(f'`{value}`' for value in get_args(field.annotation))}."
    shown = "" if told in (None, "") else f"`{told}`"
    return [f'<span id="{flag}"></span>`--{flag}`<br>`AIG_{name.upper()}`', shown, meaning]


def metrics() -> str:
    """The table of metrics, those of API keys among them."""
    return table(["name", "type", "labels", "meaning"], _metric_rows())


def _metric_rows() -> Iterable[list[str]]:
    for family in _registry().collect():
        labels = sorted({name for sample in family.samples for name in sample.labels} - {"le", "quantile"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield [f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation]


def _registry() -> CollectorRegistry:
    """Of a server that has answered one request, so that each metric has its labels."""
    manifest = read_manifest(Settings().model)
    metrics = Metrics()
    metrics.start_at_zero(["/classify"], ["overloaded"])
    of_model = ModelMetrics(manifest)
    of_model.start_at_zero(["overloaded"])
    metrics.show(of_model)
    metrics.count_request("/classify", "ok", 0.0)
    key = ApiKey(name="alice", sha256="0" * 64)
    of_keys = KeyMetrics(metrics.registry)
    of_keys.count_request(key.name, "ok")
    of_keys.count_image(key.name, 1, manifest)
    metrics.registry.register(ProcessMetrics(lambda: {"service": os.getpid()}))
    reading = Reading("NVIDIA H200", "GPU-0", dict.fromkeys(get_args(Quantity), 0.0))
    metrics.registry.register(DeviceMetrics(lambda: {0: reading}))
    return metrics.registry
