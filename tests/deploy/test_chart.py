"""What single values of the chart do, and which values it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from deploy import fetch_model
from service.settings import Settings
from tests.deploy.helm import (
    CHART,
    DIGEST,
    ROOT,
    HelmError,
    Json,
    environment,
    of_kind,
    pod,
    rendered,
    run,
    service,
    the,
)

pytestmark = pytest.mark.slow

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
# What the chart sets from other values.
OF_THE_CHART = {
    "model",
    "model_repository",
    "default_model",
    "host",
    "port",
    "cache",
    "device",
    "workers",
    "grpc_port",
    "metrics_host",
    "metrics_port",
    "api_keys",
    "tracing",
}
GPUS: Json = {"gpu": {"count": 2}}
FETCHED: Json = {"model": {"fetch": {"url": "https://files.example/cats.tar", "sha256": 64 * "a"}}}


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    assert "0 chart(s) failed" in run("lint", str(CHART), "--strict")


def test_package_has_what_the_chart_links_to(tmp_path: Path) -> None:
    run("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    shown = ("--set", "metrics.prometheusRule.enabled=true,metrics.dashboards.enabled=true")
    assert run("template", "aig", str(package), *shown) == run("template", "aig", str(CHART), *shown)


def test_chart_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"] == project["version"]


def test_schema_is_one_and_allows_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_schema_names_every_value_and_every_setting() -> None:
    assert set(SCHEMA["properties"]) - {"global"} == set(DEFAULTS)
    settings = SCHEMA["properties"]["settings"]["propertyNames"]["enum"]
    assert set(settings) == set(Settings.model_fields) - OF_THE_CHART


def test_defaults_are_those_of_the_service() -> None:
    for name in ("drain_seconds", "max_decode_mb", "max_pending_bytes"):
        assert DEFAULTS["settings"][name] == Settings.model_fields[name].default
        assert environment({"settings": {name: None}})  # and where it is taken away, the chart counts on that default
    assert environment({"ingress": {"enabled": True, "host": "a.example"}})["AIG_MAX_CONNECTIONS_PER_ADDRESS"] == str(
        Settings.model_fields["max_connections"].default
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"settings": {"queue_sizes": 3}}, "queue_sizes"),
        ({"settings": {"workers": 3}}, "workers"),
        ({"replica": 3}, "replica"),
        ({"autoscaling": {"kind": "both"}}, "kind"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"ingress": {"enabled": True}}, "host"),
        ({"model": {"fetch": {"url": "https://files.example/cats.tar"}}}, "sha256"),
        ({"model": FETCHED["model"] | {"volume": {"emptyDir": {}}}}, "volume"),
        ({"model": {"path": "../etc"}}, "path"),
        ({"metrics": {"port": 0}}, "port"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_cannot_be_are_refused_by_name(values: Json, told: str) -> None:
    with pytest.raises(HelmError, match=told):
        rendered(values)


def test_values_reach_the_service_as_it_reads_them() -> None:
    told = environment({"settings": {"max_bytes": 20_000_000, "least_budget": 0.5, "watch_models": True}})
    assert told["AIG_MAX_BYTES"] == "20000000"
    assert told["AIG_LEAST_BUDGET"] == "0.5"
    assert told["AIG_WATCH_MODELS"] == "on"


def test_gpus_have_their_image_their_class_and_are_never_done_without() -> None:
    spec, container = pod(GPUS), service(GPUS)
    assert spec["runtimeClassName"] == "nvidia"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert container["image"] == "convnet-aig-serving:gpu"
    assert environment(GPUS)["AIG_DEVICE"] == "cuda:0,1"
    assert environment({"gpu": {"count": 1}})["AIG_DEVICE"] == "cuda"
    assert environment({})["AIG_DEVICE"] == "cpu"
    assert "runtimeClassName" not in pod({})


def test_digest_wins_over_the_tag() -> None:
    assert service({"image": {"digest": DIGEST, "tag": "1"}})["image"] == f"convnet-aig-serving@{DIGEST}"
    assert service({"image": {"tag": "1"}})["image"] == "convnet-aig-serving:1"


def test_keys_come_from_a_folder_that_follows_its_secret() -> None:
    values: Json = {"apiKeys": {"secret": "keys", "key": "of-vision.toml"}}  # pragma: allowlist secret
    (mount,) = [each for each in service(values)["volumeMounts"] if each["name"] == "keys"]
    (volume,) = [each for each in pod(values)["volumes"] if each["name"] == "keys"]
    assert environment(values)["AIG_API_KEYS"] == f"{mount['mountPath']}/of-vision.toml"
    assert "subPath" not in mount
    assert volume["secret"]["items"] == [{"key": "of-vision.toml", "path": "of-vision.toml"}]


def test_models_come_from_where_the_values_say() -> None:
    assert not environment({}).keys() & {"AIG_MODEL", "AIG_MODEL_REPOSITORY"}
    shipped = environment({"model": {"repository": True, "default": "a"}})
    assert (shipped["AIG_MODEL_REPOSITORY"], shipped["AIG_DEFAULT_MODEL"]) == ("/app/model_repository", "a")
    claim: Json = {"volume": {"persistentVolumeClaim": {"claimName": "models"}}}
    one: Json = {"model": claim | {"path": "cats/1"}}
    assert environment(one)["AIG_MODEL"] == "/models/cats/1"
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in service(one)["volumeMounts"]
    assert environment({"model": claim | {"repository": True}})["AIG_MODEL_REPOSITORY"] == "/models"


def test_model_is_fetched_by_the_script_of_the_project() -> None:
    (container,) = pod(FETCHED)["initContainers"]
    fetch = FETCHED["model"]["fetch"]
    assert container["args"] == [fetch["url"], fetch["sha256"], "/models", "2048"]
    assert container["image"] == service(FETCHED)["image"]
    script = the("ConfigMap", FETCHED)["data"]["fetch_model.py"]
    assert fetch_model.__file__
    assert script == (CHART / "files" / "fetch_model.py").read_text(encoding="utf-8")
    assert "def fetch(" in script


def _reached(values: Json) -> list[tuple[list[int], str]]:
    rules = the("NetworkPolicy", values)["spec"]["egress"] or []
    return [([port["port"] for port in rule["ports"]], json.dumps(rule["to"])) for rule in rules]


def test_pods_reach_nothing_but_what_they_need() -> None:
    assert the("NetworkPolicy", {})["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert _reached({}) == []
    name_servers, collector = _reached({"tracing": {"endpoint": "http://collector.tracing:4318"}})
    assert name_servers[0] == [53, 53]
    assert "kube-dns" in name_servers[1]
    assert collector[0] == [4318]
    assert [ports for ports, _ in _reached(FETCHED)] == [[53, 53], [443]]


def test_only_those_named_reach_the_pods() -> None:
    monitoring = [{"podSelector": {"matchLabels": {"a": "b"}}}]
    rules = the("NetworkPolicy", {"networkPolicy": {"clients": [], "monitoring": monitoring}})["spec"]["ingress"]
    assert rules == [{"from": monitoring, "ports": [{"port": "metrics", "protocol": "TCP"}]}]
    assert the("NetworkPolicy", {"networkPolicy": {"clients": [], "monitoring": []}})["spec"]["ingress"] == []


def test_pods_are_spread_over_zones_and_nodes() -> None:
    spread = pod({})["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_names_tell_the_release_and_stay_short() -> None:
    assert the("Deployment", {}, release="cats")["metadata"]["name"] == "cats-convnet-aig"
    assert the("Deployment", {}, release="convnet-aig")["metadata"]["name"] == "convnet-aig"
    longest = 53 * "a"
    names = [each["metadata"]["name"] for each in rendered({}, release=longest)]
    assert max(map(len, names)) <= 63


def test_arguments_follow_the_command() -> None:
    assert service({"extraArgs": ["--log-level", "debug"]})["args"] == ["serve", "--log-level", "debug"]
    assert "args" not in service({})


def test_ingress_leads_to_the_service() -> None:
    ingress: Json = {"host": "a.example", "path": "/aig", "tlsSecret": "tls"}  # pragma: allowlist secret
    values: Json = {"ingress": ingress | {"enabled": True}}
    spec = the("Ingress", values)["spec"]
    backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in of_kind("Service", values)}
    assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]}
    assert spec["tls"] == [{"secretName": "tls", "hosts": ["a.example"]}]  # pragma: allowlist secret
