"""The queries of the dashboards' panels, and whether a Prometheus answers them with data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

# What Grafana puts in the place of its own variables, for a window that a young Prometheus can fill, and of the model
# that is chosen.
_VARIABLES = {"$__rate_interval": "10s", "$__interval": "5s", "$__range": "1m", "$model": "convnet-aig-38-cifar10"}
_WINDOW_S, _STEP_S = 30, 1


@dataclass(frozen=True)
class PanelQuery:
    """A query of a panel.

    Attributes:
        panel: the file and the panel's title.
        expression: PromQL, without Grafana's variables.
        source: the uid of its data source.
    """

    panel: str
    expression: str
    source: str | None


def read_queries(folder: Path) -> list[PanelQuery]:
    """The queries of every dashboard in a folder."""
    found = []
    for path in sorted(folder.glob("*.json")):
        for panel in _panels(json.loads(path.read_text(encoding="utf-8"))):
            for target in panel.get("targets", []):
                source = target.get("datasource") or panel.get("datasource") or {}
                name = f"{path.stem}: {panel.get('title')}"
                found.append(PanelQuery(name, _filled(target["expr"]), source.get("uid")))
    return found


def problem(query: PanelQuery, prometheus_url: str) -> str | None:
    """Why the panel would be empty; None where Prometheus has at least one number for it."""
    now = time.time()
    window = {"query": query.expression, "start": now - _WINDOW_S, "end": now, "step": _STEP_S}
    answer = httpx.get(f"{prometheus_url}/api/v1/query_range", params=window, trust_env=False).json()
    if answer["status"] != "success":
        return f"{query.panel}: {answer['error']}"
    numbers = [float(number) for series in answer["data"]["result"] for _, number in series["values"]]
    if all(map(math.isnan, numbers)):
        return f"{query.panel}: nothing but {len(numbers)} NaN for {query.expression}"
    return None


def _panels(parent: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard, or of a row."""
    for panel in parent.get("panels", []):
        yield panel
        yield from _panels(panel)


def _filled(expression: str) -> str:
    for name, text in _VARIABLES.items():
        expression = expression.replace(name, text)
    return expression
