"""Renders the chart with Helm: from the PATH, or as `make .venv-tools/helm` puts it beside the other tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runtimes import PATIENCE_S

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "convnet-aig"
TOOL = ROOT / ".venv-tools" / "helm"
DIGEST = "sha256:" + 64 * "0"
Json = dict[str, Any]

COMBINATIONS: dict[str, Json] = {
    "as it is": {},
    "GPU": {"gpu": {"count": 1}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "GPUs": {"gpu": {"count": 2, "runtimeClassName": ""}, "workers": 8, "image": {"digest": DIGEST}},
    "HPA": {"autoscaling": {"kind": "hpa", "requestsPerSecond": 700}, "workers": 3},
    "KEDA": {"autoscaling": {"kind": "keda", "keda": {"authentication": "prometheus"}}},
    "KEDA, other labels": {"autoscaling": {"kind": "keda", "keda": {"selector": 'job="other"'}}},
    "keys": {"apiKeys": {"secret": "keys"}, "service": {"type": "LoadBalancer"}},  # pragma: allowlist secret
    "ingress": {
        "ingress": {"enabled": True, "host": "a.example", "tlsSecret": "tls"},  # pragma: allowlist secret
        "settings": {"root_path": "/aig", "max_connections": 4096},
    },
    "gRPC": {"grpc": {"port": 8001}, "settings": {"drain_seconds": 45.5}, "preStopSeconds": 10},
    "ports": {"metrics": {"port": 9464}, "service": {"port": 8080}, "host": "0.0.0.0,::", "preStopSeconds": 0},
    "tracing": {"tracing": {"endpoint": "https://collector.example/otlp"}, "extraEnv": [{"name": "A", "value": "b"}]},
    "monitoring": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True},
        }
    },
    "models of the image": {"model": {"repository": True, "default": "convnet-aig-38-cifar10"}},
    "one model of the image": {"model": {"path": "cascade-14-26-cifar10/1"}},
    "models in a claim": {
        "model": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}, "repository": True, "path": "served"},
        "cache": {"existingClaim": "code"},
    },
    "a model in an image": {"model": {"volume": {"image": {"reference": f"registry.example/cats@{DIGEST}"}}}},
    "a model that is fetched": {"model": {"fetch": {"url": "http://files.example:8080/cats.tar", "sha256": 64 * "a"}}},
    "everybody": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "topologyKeys": []},
    "nobody": {"networkPolicy": {"clients": [], "monitoring": []}, "resources": {"limits": {"memory": "1Gi"}}},
    "settings of all kinds": {
        "settings": {"max_bytes": 20_000_000, "least_budget": 0.5, "watch_models": True, "model_weights": "a=2,b=1"}
    },
}
"""Values whose manifests are looked at, by what they are about."""


class HelmError(Exception):
    """Helm refuses the values; the message is its own."""


def rendered(values: Json, release: str = "aig", namespace: str = "vision") -> list[Json]:
    """The manifests of a release with these values.

    Raises:
        HelmError: Helm refuses them.
    """
    return _rendered(json.dumps(values), release, namespace)


@cache
def _rendered(values: str, release: str, namespace: str) -> list[Json]:
    text = run("template", release, str(CHART), "--namespace", namespace, "--values", "-", given=values)
    return [document for document in yaml.safe_load_all(text) if document]


def run(*arguments: str, given: str = "") -> str:
    """What Helm prints; without it the test is skipped.

    Raises:
        HelmError: it fails.
    """
    found = shutil.which("helm") or (str(TOOL) if TOOL.exists() else None)
    if found is None:
        pytest.skip("there is no helm on the PATH, nor in .venv-tools (make .venv-tools/helm)")
    done = subprocess.run([found, *arguments], input=given, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def of_kind(kind: str, values: Json, **release: str) -> list[Json]:
    """The manifests of a kind."""
    return [document for document in rendered(values, **release) if document["kind"] == kind]


def the(kind: str, values: Json, **release: str) -> Json:
    """The one manifest of a kind, or of a kind and a name's ending: Service/metrics."""
    kind, _, ending = kind.partition("/")
    found = [each for each in of_kind(kind, values, **release) if each["metadata"]["name"].endswith(ending)]
    assert found, f"there is no {kind}"
    return found[0]


def pod(values: Json) -> Json:
    """What the Deployment makes pods of."""
    spec: Json = the("Deployment", values)["spec"]["template"]["spec"]
    return spec


def service(values: Json) -> Json:
    """The container of the service."""
    (container,) = pod(values)["containers"]
    found: Json = container
    return found


def environment(values: Json) -> dict[str, str]:
    """The variables of the service."""
    return {each["name"]: each["value"] for each in service(values)["env"]}
