from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from service.settings import Settings
from tests.e2e.process import ROOT, environment
from tests.e2e.stack import docker

_GPU = ("docker-compose.yml", "docker-compose.gpu.yml")
# These say where the service listens and which files of the host it reads; in the container both are always the same.
_OF_THE_HOST = {"host", "port", "model", "model_repository", "admin_socket", "cache", "api_keys"}


@pytest.fixture(autouse=True, scope="module")
def _compose() -> None:
    missing = shutil.which("docker") is None
    if missing or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("not run: there is no docker compose")


def _configured(*files: str, profile: str = "", **variables: str) -> dict[str, Any]:
    """The services as Compose understands them with these variables set."""
    named = [part for file in files or _GPU[:1] for part in ("--file", file)]
    command = ("compose", "--profile", profile, "--env-file", os.devnull, *named, "config", "--format", "json")
    # It doubles every dollar of what it prints, so that it could be read again.
    return json.loads(docker(*command, env={**environment(), **variables}).replace("$$", "$"))["services"]


def _mount(service: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [volume for volume in service["volumes"] if volume["target"] == target]
    return found


def test_ports_are_open_to_this_machine_only() -> None:
    opened = {name: service["ports"] for name, service in _configured().items()}
    assert {
        name: [(port["host_ip"], port["published"], port["target"]) for port in ports] for name, ports in opened.items()
    } == {
        "app": [("127.0.0.1", "8000", 8000)],
        "prometheus": [("127.0.0.1", "9090", 9090)],
        "grafana": [("127.0.0.1", "3000", 3000)],
    }


def test_only_the_service_is_opened_to_others_with_its_host() -> None:
    services = _configured(AIG_HOST="0.0.0.0", AIG_PORT="80")
    assert services["app"]["ports"][0]["host_ip"] == "0.0.0.0"
    assert services["app"]["ports"][0]["published"] == "80"
    assert {services[name]["ports"][0]["host_ip"] for name in ("prometheus", "grafana")} == {"127.0.0.1"}


def test_every_setting_reaches_the_service_where_it_is_set() -> None:
    names = {f"AIG_{name.upper()}" for name in set(Settings.model_fields) - _OF_THE_HOST}
    given = dict.fromkeys(names, "7")
    passed = _configured(**given, OTEL_SERVICE_NAME="cats")["app"]["environment"]
    assert {name: value for name, value in passed.items() if name in names} == given
    assert (passed["AIG_MODEL"], passed["OTEL_SERVICE_NAME"]) == ("/model", "cats")
    unset = _configured()["app"]["environment"]
    assert {name for name, value in unset.items() if value is not None} == {"AIG_MODEL"}


def test_model_is_a_folder_of_the_host_that_the_service_cannot_change() -> None:
    default = _mount(_configured()["app"], "/model")
    assert default["source"] == str(ROOT / Settings.model_fields["model"].default)
    other = _mount(_configured(AIG_MODEL="runs/exported")["app"], "/model")
    assert other["source"] == str(ROOT / "runs/exported")
    assert {mount["read_only"] for mount in (default, other)} == {True}
    assert not other["bind"].get("create_host_path")


def test_all_models_of_a_folder_are_served_where_that_is_asked_for() -> None:
    files = ("docker-compose.yml", "docker-compose.models.yml")
    service = _configured(*files)["app"]
    mount = _mount(service, "/models")
    assert (mount["source"], mount["read_only"]) == (str(ROOT / "model_repository"), True)
    assert service["environment"]["AIG_MODEL_REPOSITORY"] == "/models"
    assert service["environment"]["AIG_DEFAULT_MODEL"] == "convnet-aig-38-cifar10"
    assert _mount(_configured(*files, AIG_MODEL_REPOSITORY="mine")["app"], "/models")["source"] == str(ROOT / "mine")


def test_service_may_finish_its_work_before_it_is_killed() -> None:
    assert _configured()["app"]["stop_grace_period"] == "1m30s"
    assert _configured(AIG_DRAIN_SECONDS="300")["app"]["stop_grace_period"] == "6m0s"


@pytest.mark.parametrize("files", [_GPU[:1], _GPU], ids=["CPU", "GPU"])
def test_containers_are_confined(files: tuple[str, ...]) -> None:
    for service in _configured(*files, profile="edge").values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert "cap_add" not in service
        assert "privileged" not in service


def test_gpu_takes_the_place_of_the_cpu_and_never_falls_back() -> None:
    services = _configured(*_GPU, AIG_DEVICE="cpu")
    assert set(services) == {"app", "prometheus", "grafana"}
    app = services["app"]
    assert app["environment"]["AIG_DEVICE"] == "cuda"
    assert app["build"]["args"]["RUNTIME"] == "gpu"
    assert app["image"] != _configured()["app"]["image"]
    (device,) = app["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu", "compute", "utility"])


def test_nginx_is_there_where_it_is_asked_for_and_reads_no_secret_but_its_certificates() -> None:
    assert "edge" not in _configured()
    edge = _configured(profile="edge", EDGE_CERTIFICATES="elsewhere")["edge"]
    (port,) = edge["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8443", 8443)
    assert _mount(edge, "/certificates")["source"] == str(ROOT / "elsewhere")
    assert {mount["read_only"] for mount in edge["volumes"]} == {True}


def _grafana_password(**variables: str) -> str:
    """The administrator's password that Grafana's container is started with."""
    grafana = _configured(**variables)["grafana"]
    (script,) = grafana["command"]
    script = script.replace("exec /run.sh", "printenv GF_SECURITY_ADMIN_PASSWORD")
    assert "printenv" in script
    password = grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    started = {"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password}
    command = [*grafana["entrypoint"], script]
    return subprocess.run(command, env=started, capture_output=True, text=True, check=True).stdout.strip()


def test_grafana_has_no_password_that_anybody_knows_unless_one_is_given() -> None:
    assert _grafana_password(GRAFANA_ADMIN_PASSWORD="a $secret") == "a $secret"  # pragma: allowlist secret
    first, second = _grafana_password(), _grafana_password()
    assert first != second
    assert min(len(first), len(second)) >= 40


def test_grafana_shows_to_anybody_and_lets_nobody_change() -> None:
    variables = _configured()["grafana"]["environment"]
    assert variables["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_grafana_finds_its_files_where_they_are_mounted() -> None:
    grafana = _configured()["grafana"]
    folder = _mount(grafana, "/etc/grafana/dashboards")
    assert folder["source"] == str(ROOT / "docker" / "grafana" / "dashboards")
    provider = ROOT / "docker" / "grafana" / "provisioning" / "dashboards" / "files.yml"
    assert re.search(r"path: (\S+)", provider.read_text())[1] == folder["target"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].startswith(folder["target"] + "/")
    source = (provider.parents[1] / "datasources" / "prometheus.yml").read_text()
    assert "uid: prometheus\n" in source
    assert "url: http://prometheus:9090\n" in source
