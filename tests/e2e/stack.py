"""The containers of docker-compose.yml as a project with a name, an image and ports of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.process import ROOT, environment

BASE_IMAGES = ("python:3.12-slim-bookworm", "prom/prometheus:v2.53.3")
PROMETHEUS_FILES = ROOT / "docker" / "prometheus"
# How long a command may take that downloads, and any other; a hang fails the test, it does not hold it up for good.
DOWNLOAD_S, COMMAND_S = 900, 180
# How long a number may take to get from the service through Prometheus' scraping and rules.
_SCRAPING_S = 60

Sample = tuple[str, frozenset[tuple[str, str]]]


def obstacle() -> str | None:
    """Why containers cannot be run here; None where they can. It downloads the base images that are missing."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        if not _succeeds("info"):
            return "no Docker engine answers"
        if not _succeeds("compose", "version"):
            return "docker has no compose"
        for image in BASE_IMAGES:
            if not _succeeds("image", "inspect", image) and not _succeeds("pull", "--quiet", image):
                return f"the image {image} is not here and cannot be pulled"
    except subprocess.TimeoutExpired as error:
        return f"{' '.join(error.cmd)} does not end"
    return None


def docker(*arguments: str, timeout_s: float = COMMAND_S, **more: Any) -> str:
    """Run a docker command that must succeed; return what it wrote to its standard output."""
    finished = subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False, **more
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    return finished.stdout


class Stack:
    """The service and Prometheus. Prometheus scrapes, and judges its rules, faster than it would for a user.

    Attributes:
        image: the service's, built from the working tree.
        url: where the service is published.
        prometheus_url: where Prometheus is.
    """

    def __init__(self, folder: Path) -> None:
        self.project = f"aig-test-{os.getpid()}"
        self.image = f"convnet-aig-serving:test-{os.getpid()}"
        ports = _free_port(), _free_port()
        self.url, self.prometheus_url = (f"http://127.0.0.1:{port}" for port in ports)
        self._environment = {**environment(), "AIG_PORT": str(ports[0]), "PROMETHEUS_PORT": str(ports[1])}
        self._override = folder / "override.json"
        mount = f"{_hasty_prometheus(folder / 'prometheus')}:/etc/prometheus:ro"
        services = {"app": {"image": self.image}, "prometheus": {"volumes": [mount]}}
        self._override.write_text(json.dumps({"services": services}))

    def __enter__(self) -> Self:
        self.compose("build", "app", timeout_s=DOWNLOAD_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        docker("image", "rm", "--force", self.image)

    def compose(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Run a docker compose command that must succeed."""
        files = ("--file", "docker-compose.yml", "--file", str(self._override))
        # A developer's .env is not the test's.
        whole = ("compose", "--env-file", os.devnull, "--project-name", self.project, *files, *arguments)
        return docker(*whole, timeout_s=timeout_s, env=self._environment)

    def up(self) -> None:
        """Start what is not running, and wait until it is ready."""
        self.compose("up", "--detach", "--wait", "app", "prometheus")

    def state(self, template: str) -> str:
        """What `docker inspect` says of the service's container."""
        return docker("inspect", "--format", template, f"{self.project}-app-1").strip()

    def address(self) -> str:
        """The service's address in the containers' network."""
        return self.state("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")

    def python(self, code: str) -> str:
        """Run Python beside the service, in its container; return what it printed."""
        return self.compose("exec", "-T", "app", "python", "-c", code).strip()

    def client(self) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=False)

    def samples(self, wanted: str) -> dict[Sample, float]:
        """The service's own samples whose name and labels match a pattern."""
        with self.client() as client:
            families = text_string_to_metric_families(client.get("/metrics").text)
        found = {
            (sample.name, frozenset(sample.labels.items())): sample.value for f in families for sample in f.samples
        }
        return {sample: value for sample, value in found.items() if re.search(wanted, _text(sample))}

    def query(self, expression: str) -> dict[Sample, float]:
        """What Prometheus answers now, without the labels that tell where it scraped."""
        answer = httpx.get(f"{self.prometheus_url}/api/v1/query", params={"query": expression}, trust_env=False).json()
        assert answer["status"] == "success", answer
        found = {}
        for series in answer["data"]["result"]:
            labels = {name: text for name, text in series["metric"].items() if name not in ("job", "instance")}
            found[labels.pop("__name__", ""), frozenset(labels.items())] = float(series["value"][1])
        return found

    def wait_for(self, expression: str, expected: Mapping[Sample, float]) -> None:
        """Return as soon as Prometheus answers exactly this."""
        give_up = time.monotonic() + _SCRAPING_S
        while (found := self.query(expression)) != expected:
            assert time.monotonic() < give_up, f"{expression} is {found}, not {expected}"
            time.sleep(0.2)


def _hasty_prometheus(folder: Path) -> Path:
    """The project's configuration of Prometheus, in which everything happens within seconds."""
    shutil.copytree(PROMETHEUS_FILES, folder)
    configuration = folder / "prometheus.yml"
    text, changed = re.subn(r"(?m)^( *(?:scrape|evaluation)_interval:).*$", r"\1 1s", configuration.read_text())
    assert changed == 2, text
    configuration.write_text(text)
    for rules in folder.glob("rules/*.yml"):
        hasty = re.sub(r"(?m)^( *(?:for|interval|keep_firing_for):).*$", r"\1 1s", rules.read_text())
        rules.write_text(hasty)
    for path in (folder, *folder.rglob("*")):  # Prometheus is another user
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _succeeds(*arguments: str) -> bool:
    finished = subprocess.run(["docker", *arguments], capture_output=True, timeout=COMMAND_S, check=False)
    return finished.returncode == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _text(sample: Sample) -> str:
    name, labels = sample
    return f"{name}{{{','.join(f'{label}={value}' for label, value in sorted(labels))}}}"
