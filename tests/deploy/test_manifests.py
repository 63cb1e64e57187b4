"""What Helm makes of many values: what Kubernetes takes, what the service has, and what is told to nobody."""

from __future__ import annotations

import math
import re

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

from service.http.routes import metrics_router, router
from service.settings import Settings
from tests.deploy.helm import COMBINATIONS, ROOT, Json, environment, of_kind, pod, rendered, service, the

OLDEST, NEWEST = "1.30", "1.37"
# What older versions do not have, and is asked for by who has a newer one.
OF_NEWER = {"a model in an image"}
CUSTOM = {"PrometheusRule": PrometheusRule, "ScaledObject": ScaledObject, "ServiceMonitor": ServiceMonitor}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS),
]


def test_kubernetes_knows_every_field(values: Json, request: pytest.FixtureRequest) -> None:
    newer_only = request.node.callspec.id in OF_NEWER
    for document in rendered(values):
        if model := CUSTOM.get(document["kind"]):
            model.model_validate(document, extra="forbid")
            continue
        for version in [NEWEST] if newer_only else [OLDEST, NEWEST]:
            kubernetes_validate.validate(document, version, strict=True)


def test_service_has_every_setting_and_takes_its_value(values: Json) -> None:
    given = {name: value for name, value in environment(values).items() if name.startswith("AIG_")}
    assert set(given) <= {f"AIG_{name.upper()}" for name in Settings.model_fields}
    with pytest.MonkeyPatch.context() as variables:
        for name, value in given.items():
            variables.setenv(name, value)
        settings = Settings()
    assert (settings.port, settings.workers) == (8000, values.get("workers", 2))


def test_no_service_of_the_cluster_becomes_a_setting(values: Json) -> None:
    assert pod(values)["enableServiceLinks"] is False


def test_probes_ask_for_routes_that_need_no_key(values: Json) -> None:
    paths = {route.path for route in router.routes}  # type: ignore[attr-defined]
    asked = {name: service(values)[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {probe["path"] for probe in asked.values()} <= paths
    assert {probe["port"] for probe in asked.values()} == {"http"}


def test_ports_agree(values: Json) -> None:
    told = environment(values)
    ports = {port["name"]: port["containerPort"] for port in service(values)["ports"]}
    settings = {"http": "AIG_PORT", "metrics": "AIG_METRICS_PORT", "grpc": "AIG_GRPC_PORT"}
    assert ports == {name: int(told[variable]) for name, variable in settings.items() if variable in told}
    aimed = {port["targetPort"] for each in of_kind("Service", values) for port in each["spec"]["ports"]}
    assert aimed == set(ports)
    for policy in of_kind("NetworkPolicy", values):
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert opened in (set(ports), set())


def test_metrics_are_on_no_service_that_is_opened_to_clients(values: Json) -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind("Service", values)}
    with_metrics = [spec for spec in services.values() if "metrics" in {port["name"] for port in spec["ports"]}]
    assert [spec.get("clusterIP") for spec in with_metrics] == ["None"]
    assert [port["name"] for port in with_metrics[0]["ports"]] == ["metrics"]
    assert {route.path for route in metrics_router.routes} == {"/metrics"}  # type: ignore[attr-defined]


def test_pods_are_confined(values: Json) -> None:
    spec = pod(values)
    assert spec["automountServiceAccountToken"] is False
    assert {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}.items() <= spec[
        "securityContext"
    ].items()
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_pods_have_the_user_and_the_folders_of_the_image(values: Json) -> None:
    spec, image = pod(values), (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    user = re.search(r"^USER (\d+):(\d+)$", image, re.MULTILINE)
    assert user is not None
    assert [str(spec["securityContext"][field]) for field in ("runAsUser", "runAsGroup")] == [*user.groups()]
    mounted = {mount["mountPath"]: mount for mount in service(values)["volumeMounts"]}
    assert f"AIG_CACHE={environment(values)['AIG_CACHE']} " in image
    home = re.search(r"^ +HOME=(\S+)", image, re.MULTILINE)
    assert home is not None
    written = {path for path, mount in mounted.items() if not mount.get("readOnly")}
    assert written == {home[1], environment(values)["AIG_CACHE"]} == {"/tmp", "/var/cache/convnet-aig"}
    assert {mount["name"] for mount in mounted.values()} <= {volume["name"] for volume in spec["volumes"]}


def test_pods_may_finish_their_work_before_they_are_killed(values: Json) -> None:
    grace = pod(values)["terminationGracePeriodSeconds"]
    drain = float(environment(values)["AIG_DRAIN_SECONDS"])
    pause = service(values).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pause == values.get("preStopSeconds", 5)
    # HTTP, then gRPC; and as for `docker compose`, a minute more.
    transports = 2 if "AIG_GRPC_PORT" in environment(values) else 1
    assert grace == pause + math.ceil(drain) * transports + 60


def test_memory_follows_from_what_the_service_may_take(values: Json) -> None:
    if "resources" in values:
        assert service(values)["resources"] == values["resources"]
        return
    told, gpus = environment(values), values.get("gpu", {}).get("count", 0)
    workers = int(told["AIG_WORKERS"])
    request, limit = (
        int(service(values)["resources"][kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits")
    )
    assert service(values)["resources"]["requests"]["cpu"] == told["AIG_WORKERS"]
    assert request == 160 + workers * 96 + gpus * 4096
    held = workers * int(told["AIG_MAX_DECODE_MB"]) * 1_000_000 + int(told["AIG_MAX_PENDING_BYTES"])
    assert limit == request + 256 + math.ceil(held / 1_048_576)


def test_nothing_is_lost_in_an_update(values: Json) -> None:
    deployment = the("Deployment", values)["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    for budget in of_kind("PodDisruptionBudget", values):
        assert budget["spec"]["selector"] == deployment["selector"]
        assert budget["spec"]["maxUnavailable"] == 1


def test_either_one_thing_or_none_says_how_many_pods_there_are(values: Json) -> None:
    kind = values.get("autoscaling", {}).get("kind", "none")
    scalers = [each["kind"] for each in rendered(values) if "scaleTargetRef" in each.get("spec", {})]
    assert scalers == {"none": [], "hpa": ["HorizontalPodAutoscaler"], "keda": ["ScaledObject"]}[kind]
    assert ("replicas" in the("Deployment", values)["spec"]) == (kind == "none")


def test_no_manifest_holds_a_secret(values: Json) -> None:
    assert not of_kind("Secret", values)
    assert "sha256 = " not in yaml.safe_dump([each for each in rendered(values) if each["kind"] != "ConfigMap"])
