from __future__ import annotations

import copy
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.process import ROOT, environment

BIN = ROOT / ".venv-ray" / "bin"
# Replicas are processes that import libraries, on a machine that does other things as well.
START_S = 120
# Nothing is measured where only answers count.
QUICK = {"runtime": "onnx", "device": "cpu", "workers": 1, "max_batch": 4, "max_wait_ms": 0}


def eventually(condition: Callable[[], bool]) -> None:
    """Return once a condition holds that machines bring about."""
    give_up = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < give_up, "it never came about"
        time.sleep(0.1)


class RayCluster:
    """A cluster with the service on it, and nothing else.

    Args:
        folder: for files.
        head_cpus: of its first node.

    Attributes:
        address: of the cluster, as Ray takes it.
        port: of the service.
        metrics_port: of Ray's agent on the node that takes requests.
        nodes: the others, each with room for one replica of the engine.
    """

    def __init__(self, folder: Path, head_cpus: int = 4) -> None:
        self.nodes: list[str] = []
        self._file = folder / "serve.yaml"
        self.port, self.metrics_port, dashboard = (_free_port() for _ in range(3))
        self._address = f"http://127.0.0.1:{dashboard}"
        self._environment = environment() | {
            "AIG_CACHE": str(folder / "cache"),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        numbers = (dashboard, self.metrics_port, head_cpus)
        self._process = subprocess.Popen(
            [str(BIN / "python"), str(Path(__file__).parent / "cluster.py"), *map(str, numbers)],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._expect("ready ")

    def add(self, name: str) -> None:
        """Add a node with room for one replica of the engine."""
        self._say(f"add {name}")
        self.nodes.append(name)

    def kill(self, name: str) -> None:
        """Kill a node, as a machine that burns down."""
        self._say(f"kill {name}")
        self.nodes.remove(name)

    def deploy(self, model: Path, beside: Path) -> None:
        """`serve deploy` what the file in deploy/ says, but for sizes and ports; wait until that is running.

        Args:
            model: that two replicas run.
            beside: another, at /narrow, which one replica runs and for which hardly any image may wait.
        """
        config = yaml.safe_load((ROOT / "deploy" / "ray-serve.yaml").read_text())
        config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": self.port}}
        (application,) = config["applications"]
        narrow = copy.deepcopy(application) | {"name": "narrow", "route_prefix": "/narrow"}
        config["applications"].append(narrow)
        application["args"] = {"model": str(model), **QUICK}
        narrow["args"] = {"model": str(beside), "queue_size": 2, **QUICK}
        for each, replicas, place in ((application, 2, "engines"), (narrow, 1, "front")):
            ingress, engine = each["deployments"]
            ingress |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": 1, "resources": {"front": 1}}}
            del engine["autoscaling_config"]
            engine |= {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 1, "resources": {place: 1}}}
        self._file.write_text(yaml.safe_dump(config))
        command = [str(BIN / "serve"), "deploy", "--address", self._address, str(self._file)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=START_S)
        assert done.returncode == 0, done.stdout + done.stderr
        self.wait_until_running()

    def wait_until_running(self) -> None:
        """Wait until both are what was deployed last."""
        eventually(lambda: self._statuses() == {"RUNNING"})

    def client(self) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def close(self) -> None:
        """End the cluster."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(START_S)
        finally:
            self._process.kill()
            self._process.wait()
            stdout: Any = self._process.stdout
            stdout.close()

    def _statuses(self) -> set[str]:
        told = httpx.get(f"{self._address}/api/serve/applications/", timeout=START_S).json()["applications"].values()
        failed = [each["message"] for each in told if each["status"] == "DEPLOY_FAILED"]
        assert not failed, failed
        return {each["status"] for each in told}

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        self._expect("done")

    def _expect(self, said: str) -> str:
        """What stands behind that in the line that begins with it."""
        stdout: Any = self._process.stdout
        for line in stdout:
            if line.startswith(said):
                return str(line).removeprefix(said).strip()
        raise AssertionError(f"the cluster ended with status {self._process.wait()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def two_nodes(folder: Path, **more: int) -> Iterator[RayCluster]:
    """A cluster of two nodes that run the network, and its first one."""
    cluster = RayCluster(folder, **more)
    try:
        cluster.add("first")
        cluster.add("second")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster whose first node takes requests."""
    with two_nodes(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster
