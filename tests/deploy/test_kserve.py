from __future__ import annotations

import argparse
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.http.protocol_routes import protocol_router
from service.settings import Settings, add_flags
from tests.deploy.helm import ROOT, service

Json = dict[str, Any]


def _read(name: str) -> Json:
    read: Json = yaml.safe_load((ROOT / "deploy" / "kserve" / name).read_text(encoding="utf-8"))
    return read


RUNTIME, EXAMPLE = _read("runtime.yaml"), _read("example.yaml")
(CONTAINER,) = RUNTIME["spec"]["containers"]


def _settings() -> Settings:
    """What the runtime's arguments say; argparse ends the program over one that it does not know."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    command, *flags = CONTAINER["args"]
    assert command == "serve"
    return Settings(**{name: value for name, value in vars(parser.parse_args(flags)).items() if value is not None})


def test_kubernetes_knows_every_field_of_the_pod() -> None:
    predictor = EXAMPLE["spec"]["predictor"]
    of_pods = {key: value for key, value in predictor.items() if key not in {"model", "minReplicas", "maxReplicas"}}
    spec = of_pods | {"containers": [CONTAINER], "volumes": RUNTIME["spec"]["volumes"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    kubernetes_validate.validate(pod, "1.37", strict=True)


def test_runtime_serves_the_folder_that_kserve_fills() -> None:
    settings = _settings()
    assert str(settings.model) == "/mnt/models"
    assert {port["containerPort"] for port in CONTAINER["ports"]} == {settings.port}
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == str(settings.port)
    assert settings.metrics_port == 0  # so that /metrics is there
    assert CONTAINER["name"] == "kserve-container"
    assert RUNTIME["spec"]["multiModel"] is False


def test_probes_are_those_of_the_protocol() -> None:
    paths = {route.path for route in protocol_router.routes}  # type: ignore[attr-defined]
    probes = [CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert {probe["path"] for probe in probes} == {"/v2/health/live", "/v2/health/ready"}
    assert {probe["path"] for probe in probes} <= paths
    assert {probe["port"] for probe in probes} == {_settings().port}


def test_runtime_is_confined_and_writes_to_its_own_folder_only() -> None:
    assert {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }.items() <= CONTAINER["securityContext"].items()
    (mount,) = CONTAINER["volumeMounts"]
    assert str(_settings().cache).startswith(f"{mount['mountPath']}/")


def test_example_names_what_the_runtime_has() -> None:
    model = EXAMPLE["spec"]["predictor"]["model"]
    assert {"autoSelect": True, "priority": 1, **model["modelFormat"]} in RUNTIME["spec"]["supportedModelFormats"]
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    assert EXAMPLE["spec"]["predictor"]["enableServiceLinks"] is False
    assert EXAMPLE["spec"]["predictor"]["terminationGracePeriodSeconds"] >= _settings().drain_seconds + 60


@pytest.mark.slow
def test_resources_are_those_of_the_chart() -> None:
    assert service({"workers": _settings().workers})["resources"] == CONTAINER["resources"]
