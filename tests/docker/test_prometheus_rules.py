"""The rules and their unit tests, run by promtool: from the PATH, or from Prometheus's own image."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.manifest import ExecutionProfile
from service.errors import NOT_THE_CLIENTS_FAULT
from service.observability.device_metrics import DeviceMetrics
from service.observability.metrics import Metrics
from service.observability.model_metrics import ModelMetrics
from tests.runtimes import PATIENCE_S, echo_manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2] / "docker" / "prometheus"
RULES = sorted(ROOT.glob("rules/*.yml"))
TESTS = sorted(ROOT.glob("tests/*.test.yml"))
IMAGE = "prom/prometheus:v2.53.3"

Promtool = Callable[..., None]


@pytest.fixture(scope="module")
def promtool() -> Promtool:
    """Runs promtool with the arguments given, in the folder of Prometheus's configuration; it must succeed."""
    if found := shutil.which("promtool"):
        command = [found]
    elif _has_image():
        mount = ["--volume", f"{ROOT}:/prometheus-config:ro", "--workdir", "/prometheus-config"]
        command = [
            "docker",
            "run",
            "--rm",
            "--pull=never",
            "--network=none",
            *mount,
            "--entrypoint=/bin/promtool",
            IMAGE,
        ]
    else:
        pytest.skip(f"there is neither promtool on the PATH nor the Docker image {IMAGE}")

    def run(*arguments: str | Path) -> None:
        relative = [str(part.relative_to(ROOT)) if isinstance(part, Path) else part for part in arguments]
        done = subprocess.run([*command, *relative], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def _has_image() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "image", "inspect", IMAGE], capture_output=True, timeout=PATIENCE_S).returncode == 0


def test_prometheus_accepts_the_rules(promtool: Promtool) -> None:
    assert len(RULES) == 2
    promtool("check", "rules", *RULES)


def test_prometheus_accepts_its_configuration(promtool: Promtool) -> None:
    configuration = ROOT / "prometheus.yml"
    if not configuration.exists():
        pytest.skip("there is no configuration beside the rules")
    assert "rules/*.yml" in configuration.read_text()
    promtool("check", "config", configuration)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_rules_do_what_their_tests_say(promtool: Promtool, path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_fires_in_a_test_and_tells_how_bad_it_is_and_what_to_do() -> None:
    alerts = (ROOT / "rules" / "alerts.yml").read_text().split("- alert: ")[1:]
    tests = "".join(path.read_text() for path in TESTS)
    fired = set(re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels", tests))
    assert {alert.split()[0] for alert in alerts} == fired
    for alert in alerts:
        assert re.search(r"labels: \{severity: (critical|warning)\}\n", alert), alert
        assert "summary: " in alert, alert
        assert "description: " in alert, alert


def test_rules_count_as_faults_what_the_service_answers_with_500_and_above() -> None:
    faults = set(NOT_THE_CLIENTS_FAULT) - {"overloaded"}
    assert faults >= {"inference_failed", "deadline_exceeded", "internal_error"}
    lists = [set(found.split("|")) for path in RULES for found in re.findall(r'outcome=~"([^"]+)"', path.read_text())]
    assert len(lists) == 3
    assert [named - {"overloaded", "client_gone"} for named in lists] == [faults] * 3


def test_rules_ask_only_for_metrics_that_the_service_has() -> None:
    expressions = " ".join(re.findall(r"expr: (.+?)\n +(?:- |\w+: |#)", _without_comments(), re.DOTALL))
    asked = {
        re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"(?<![:\w])aig_\w+(?![:\w])", expressions)
    }
    profiled = echo_manifest().model_copy(update={"profile": ExecutionProfile(images=100, rates=(1, 0.5, 0.5))})
    metrics = Metrics()
    metrics.show(ModelMetrics(profiled))
    metrics.registry.register(DeviceMetrics(dict))
    told = set(re.findall(r"^# TYPE (\w+)", metrics.render().decode(), re.MULTILINE))
    assert len(asked) > 10
    assert asked - told == set()


def _without_comments() -> str:
    lines = [line for path in RULES for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return "\n".join([*lines, "- "])
