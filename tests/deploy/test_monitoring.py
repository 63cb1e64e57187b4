"""Rules and dashboards are those of docker/, and what scales asks for metrics that the service has."""

from __future__ import annotations

import json
import re

import promql_parser
import pytest
import yaml

from artifact.manifest import read_manifest
from service.errors import NOT_THE_CLIENTS_FAULT
from service.grpc.calls import path_of
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from tests.deploy.helm import ROOT, Json, of_kind, the

pytestmark = pytest.mark.slow

SHOWN: Json = {"metrics": {kind: {"enabled": True} for kind in ("serviceMonitor", "prometheusRule", "dashboards")}}
KEDA: Json = {"autoscaling": {"kind": "keda", "requestsPerSecond": 700}}
HPA: Json = {"autoscaling": {"kind": "hpa", "requestsPerSecond": 700}}
ADAPTER = yaml.safe_load((ROOT / "deploy" / "prometheus-adapter.yaml").read_text(encoding="utf-8"))["rules"]["custom"]
MODEL = ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"


def _exported() -> set[str]:
    metrics = Metrics()
    metrics.show(ModelMetrics(read_manifest(MODEL)))
    names = {family.name: family.type for family in metrics.registry.collect()}
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum"]}
    return {name + ending for name, kind in names.items() for ending in endings[kind]}


def _selectors(query: str) -> dict[str, str]:
    """The metrics that a query asks for, and with which labels."""
    found: dict[str, str] = {}

    def note(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            found[str(part.name)] = str(part.matchers)

    promql_parser.walk(promql_parser.parse(query), note)
    return found


def test_rules_are_those_of_the_compose_file() -> None:
    groups = {group["name"]: group["rules"] for group in the("PrometheusRule", SHOWN)["spec"]["groups"]}
    sources = {
        f"{path.stem}-{group['name']}": group["rules"]
        for path in sorted((ROOT / "docker" / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    }
    assert groups == sources
    assert {"alerts-serving", "recording-traffic"} <= groups.keys()


def test_dashboards_are_those_of_the_compose_file() -> None:
    maps = of_kind("ConfigMap", SHOWN)
    shown = {name: text for each in maps for name, text in each["data"].items()}
    folder = ROOT / "docker" / "grafana" / "dashboards"
    assert shown == {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in maps} == {"1"}


def test_prometheus_asks_the_metrics_service_under_the_name_that_rules_have() -> None:
    monitor, service = the("ServiceMonitor", SHOWN)["spec"], the("Service/metrics", SHOWN)
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    matched = [
        each["metadata"]["name"]
        for each in of_kind("Service", SHOWN)
        if monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert matched == [service["metadata"]["name"]]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    (relabeling,) = endpoint["relabelings"]
    named = re.findall(r'job="([^"]+)"', json.dumps(the("PrometheusRule", SHOWN)).replace("\\", ""))
    assert set(named) == {relabeling["replacement"]} == {"convnet-aig"}


def test_keda_asks_for_metrics_of_this_release_that_the_service_has() -> None:
    triggers = {each["name"]: each["metadata"]["query"] for each in the("ScaledObject", KEDA)["spec"]["triggers"]}
    assert list(triggers) == ["queue", "wait", "refusals", "load"]
    for query in triggers.values():
        asked = _selectors(query)
        assert asked
        assert asked.keys() <= _exported()
        for matchers in asked.values():
            assert '"vision"' in matchers
            assert '"aig-convnet-aig-metrics"' in matchers
    assert the("Service/metrics", KEDA)["metadata"]["name"] == "aig-convnet-aig-metrics"
    assert 'outcome="overloaded"' in triggers["refusals"]
    assert "overloaded" in NOT_THE_CLIENTS_FAULT


def test_metrics_of_pods_are_those_that_the_adapter_makes() -> None:
    asked = {each["pods"]["metric"]["name"] for each in the("HorizontalPodAutoscaler", HPA)["spec"]["metrics"]}
    assert asked == {rule["name"]["as"] for rule in ADAPTER}
    for rule in ADAPTER:
        labels = {"<<.GroupBy>>": "pod", "<<.LabelMatchers>>": 'pod=~"a|b"'}
        query = rule["metricsQuery"]
        for placeholder, text in labels.items():
            query = query.replace(placeholder, text)
        assert _selectors(query).keys() <= _exported()
        assert _selectors(rule["seriesQuery"]).keys() <= _exported()


def test_both_scale_by_the_same_numbers() -> None:
    values = {"workers": 3, "autoscaling": {"queuedPerWorker": 1.5, "queueSeconds": 0.02, "refusedPerSecond": 4}}
    values["autoscaling"]["requestsPerSecond"] = 0.5  # type: ignore[index]
    keda = {**values, "autoscaling": values["autoscaling"] | {"kind": "keda"}}  # type: ignore[operator]
    hpa = {**values, "autoscaling": values["autoscaling"] | {"kind": "hpa"}}  # type: ignore[operator]
    by_keda = [float(each["metadata"]["threshold"]) for each in the("ScaledObject", keda)["spec"]["triggers"]]
    by_hpa = {
        each["pods"]["metric"]["name"]: int(each["pods"]["target"]["averageValue"].removesuffix("m")) / 1000
        for each in the("HorizontalPodAutoscaler", hpa)["spec"]["metrics"]
    }
    assert by_keda == [4.5, 0.02, 4.0, 0.5]
    assert [
        by_hpa[f"aig_{name}"] for name in ("queue_depth", "queue_seconds_p99", "refused_requests", "image_requests")
    ] == by_keda


def test_load_is_counted_on_the_routes_that_take_images_only() -> None:
    (query,) = [
        each["metadata"]["query"] for each in the("ScaledObject", KEDA)["spec"]["triggers"] if each["name"] == "load"
    ]
    (pattern,) = re.findall(r'route=~"([^"]+)"', query)
    with_images = ["/classify", "/models/{name}/classify/batch", "/v2/models/{name}/infer", path_of("ModelInfer")]
    assert all(re.fullmatch(pattern, route) for route in with_images)
    assert not any(re.fullmatch(pattern, route) for route in ("/healthz", "/readyz", "/metrics", "unmatched"))
    assert pattern in (ROOT / "deploy" / "prometheus-adapter.yaml").read_text(encoding="utf-8")


def test_load_is_left_out_where_nobody_says_what_a_pod_can_answer() -> None:
    triggers = the("ScaledObject", {"autoscaling": {"kind": "keda"}})["spec"]["triggers"]
    assert [each["name"] for each in triggers] == ["queue", "wait", "refusals"]
