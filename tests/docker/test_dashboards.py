from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from artifact.manifest import read_manifest
from docker.grafana.__main__ import DASHBOARDS, PAGES, main
from docker.grafana.blocks import in_network_order
from docker.grafana.operation import FAULTS, REFUSAL
from service.errors import NOT_THE_CLIENTS_FAULT
from service.observability.device_metrics import DeviceMetrics
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from service.observability.process_metrics import ProcessMetrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "rules"
MODEL = ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
OF_PROMETHEUS = {"ALERTS"}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_bucket", "_sum", "_count"),
}
Json = dict[str, Any]


def _dashboard(name: str) -> Json:
    loaded: Json = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


BOARDS = {name: _dashboard(name) for name in PAGES}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
QUERIES = [target for param in PANELS for target in param.values[0]["targets"]]


def _selected(expr: str) -> set[str]:
    """The metrics an expression, as Grafana would send it, asks for."""
    for variable in ("$__rate_interval", "$__range"):
        expr = expr.replace(variable, "1m")
    names = set()

    def note(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            names.add(str(part.name))

    promql_parser.walk(promql_parser.parse(expr), note)
    return names


def _exported() -> set[str]:
    metrics = Metrics()
    metrics.show(ModelMetrics(read_manifest(MODEL)))
    registry = metrics.registry
    registry.register(ProcessMetrics(dict))
    registry.register(DeviceMetrics(dict))
    families = registry.collect()
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def _recorded() -> set[str]:
    rules = "".join(path.read_text(encoding="utf-8") for path in RULES.glob("*.yml"))
    return set(re.findall(r"- record: (\S+)", rules))


def _overlap(one: Json, other: Json) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def test_committed_json_is_what_the_code_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docker.grafana.__main__.DASHBOARDS", tmp_path)

    main()

    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in DASHBOARDS.glob("*.json")}, "run `make dashboards`"


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query["expr"])
def test_every_expression_parses_and_names_metrics_that_exist(query: Json) -> None:
    metrics = _selected(query["expr"])

    assert metrics
    assert metrics <= _exported() | _recorded() | OF_PROMETHEUS


def test_all_metrics_of_an_expression_are_seen() -> None:
    expr = "topk(1, -(sum by (x) (rate(a[1m])) / on() group_left b) or (max_over_time(c[5m:1m]) unless d offset 1m))"

    assert _selected(expr) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_explains_itself_and_has_a_unit_and_a_range(panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]

    assert len(panel["description"].split()) >= 8
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["min"] == 0
    assert defaults.get("max") == (1 if defaults["unit"] in ("percentunit", "bool") else None)


@pytest.mark.parametrize("panel", PANELS)
def test_every_query_has_a_letter_and_asks_prometheus(panel: Json) -> None:
    letters = [target["refId"] for target in panel["targets"]]

    assert letters == list("ABCDEFGH"[: len(letters)])
    assert {source["datasource"]["uid"] for source in (panel, *panel["targets"])} == {"prometheus"}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_fill_the_grid_without_overlap(board: Json) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    lines = max(place["y"] + place["h"] for place in places)

    assert not any(_overlap(one, other) for one, other in combinations(places, 2))
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert sum(place["w"] * place["h"] for place in places) == 24 * lines
    assert len({panel["id"] for panel in board["panels"]}) == len(places)


def test_each_dashboard_links_to_the_other() -> None:
    operation, adaptivity = BOARDS["operation"], BOARDS["adaptivity"]

    assert [link["url"] for link in operation["links"]] == [f"/d/{adaptivity['uid']}"]
    assert [link["url"] for link in adaptivity["links"]] == [f"/d/{operation['uid']}"]


def test_every_error_that_is_not_the_clients_is_told_as_refusal_or_fault() -> None:
    assert {REFUSAL, *FAULTS.split("|")} == set(NOT_THE_CLIENTS_FAULT)


def test_overrides_name_series_that_their_panel_draws() -> None:
    for (panel,) in (param.values for param in PANELS):
        shown = {target["legendFormat"] for target in panel["targets"]}
        for transformation in panel.get("transformations", ()):
            shown |= set(transformation["options"].get("renameByName", {}).values())
        overrides = panel["fieldConfig"]["overrides"]
        named = {override["matcher"]["options"] for override in overrides if override["matcher"]["id"] == "byName"}
        assert named <= shown, panel["title"]


def test_blocks_are_put_in_the_networks_order() -> None:
    blocks = [f"stage{stage}_block{block}" for stage in range(1, 5) for block in range(1, 37)]
    shuffled = random.Random(0).sample(blocks, len(blocks))

    assert sorted(blocks) != blocks
    assert sorted(shuffled, key=_place) == blocks


def _place(block: str) -> str:
    """What the label_replace calls of `in_network_order` make of a block's name, the inner one first."""
    place = ""
    for replacement, pattern in re.findall(r'"(\$1[^"]*)", "block", "([^"]*)"', in_network_order("x")):
        if match := re.fullmatch(pattern, block):
            place = replacement.replace("$1", match[1]).replace("$2", match[2])
    return place
