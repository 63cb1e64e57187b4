"""The service on a Ray cluster of several nodes, deployed from the file that ships.

Ray has an environment of its own, which `make test-ray` sets up. The tests share a cluster, which takes half a minute
to start.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from tests.deploy.conftest import BIN, QUICK, START_S, RayCluster, eventually
from tests.e2e.process import ROOT, ServerProcess, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "python").exists(), reason="make test-ray sets up the environment that has Ray"),
    pytest.mark.timeout(400),
]
# What a client may send again: the service has said that it did not take it, or lost it.
RETRIED = {429, 503}


@pytest.fixture(scope="module")
def versions(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The small network as two versions."""
    folders = [tmp_path_factory.mktemp("versions") / version for version in ("1", "2")]
    for folder in folders:
        shutil.copytree(artifact, folder)
        manifest = folder / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": folder.name}))
    return folders


@pytest.fixture(scope="module")
def deployed(cluster: RayCluster, versions: list[Path]) -> RayCluster:
    """The cluster, where the first version runs on two replicas, and another application beside it."""
    cluster.deploy(versions[0], beside=versions[0])
    return cluster


class Load:
    """What came of the requests of several clients, each of which sends the next when it has an answer."""

    def __init__(self, cluster: RayCluster, picture: bytes) -> None:
        self.statuses: Counter[int] = Counter()
        self._cluster, self._picture = cluster, picture
        self._over = Event()

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Send requests meanwhile."""
        with ThreadPoolExecutor(clients) as pool:
            sending = [pool.submit(self._send) for _ in range(clients)]
            try:
                eventually(lambda: self.statuses.total() > 2 * clients)
                yield
                after = self.statuses.total() + 2 * clients
                eventually(lambda: self.statuses.total() > after)
            finally:
                self._over.set()
            for each in sending:
                each.result(START_S)

    def _send(self) -> None:
        with self._cluster.client() as client:
            while not self._over.is_set():
                self.statuses[client.post("/classify", content=self._picture).status_code] += 1


def _answers(client: httpx.Client, pictures: list[bytes]) -> list[Any]:
    """What is said of pictures, but for times."""
    answers = []
    for picture in pictures:
        answer = client.post("/classify", content=picture).raise_for_status().json()
        answers.append({name: value for name, value in answer.items() if name not in ("timing_ms", "request_id")})
    return answers


def _metrics(text: str, prefix: str = "") -> set[str]:
    """The names of the service's metrics that are told, without what stands before them."""
    names = {re.split("[{ ]", line)[0] for line in text.splitlines() if line.startswith(f"{prefix}aig_")}
    return {name.removeprefix(prefix) for name in names}


def test_answers_are_those_of_a_single_process(
    deployed: RayCluster, versions: list[Path], pictures: list[bytes]
) -> None:
    flags = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with ServerProcess(versions[0], *flags) as server, server.client() as alone, deployed.client() as client:
        eventually(lambda: alone.get("/readyz").status_code == 200)
        assert _answers(client, pictures[:6]) == _answers(alone, pictures[:6])
        for path in ("/", "/v2/models/small"):
            assert client.get(path).content == alone.get(path).content, path
        names = [_metrics(each.get("/metrics").text) for each in (client, alone)]
        assert names[0] == names[1]
        agent = f"http://127.0.0.1:{deployed.metrics_port}/metrics"
        told = {name for name in names[0] if not name.endswith("_created")}
        eventually(lambda: told <= _metrics(httpx.get(agent).text, prefix="ray_"))


def test_bad_image_is_refused_with_its_error(deployed: RayCluster, pictures: list[bytes]) -> None:
    with deployed.client() as client:
        for image, status, error in ((b"no image", 415, "not_an_image"), (pictures[0][:-40], 422, "corrupt_image")):
            answer = client.post("/classify", content=image)
            told = answer.json()["error"]
            assert (answer.status_code, told["type"]) == (status, error)
            assert answer.headers.get_list("X-Request-ID") == [told["request_id"]]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"grpc_port": 9000}, "SettingsError: grpc_port counts for nothing under Ray Serve; see docs/ray.md"),
        ({"queue_size": 0}, "greater than or equal to 1"),
        ({"queue": 1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_starts(args: dict[str, int], said: str) -> None:
    program = f"from deploy.ray import app; app({args})"
    done = subprocess.run(
        [str(BIN / "python"), "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_more_than_can_be_queued_is_refused_and_may_come_again(deployed: RayCluster, pictures: list[bytes]) -> None:
    with deployed.client() as client, ThreadPoolExecutor(24) as pool:
        answers = [*pool.map(lambda _: client.post("/narrow/classify", content=pictures[0]), range(200))]
        assert client.get("/narrow/readyz").status_code == 200
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["type"] == "overloaded"
    assert int(refused.headers["Retry-After"]) >= 1


def test_version_is_replaced_by_another_under_load_without_a_lost_request(
    deployed: RayCluster, versions: list[Path], pictures: list[bytes]
) -> None:
    load = Load(deployed, pictures[0])
    with deployed.client() as client, load.running(clients=4):
        assert client.get("/model").json()["version"] == "1"
        deployed.deploy(versions[1], beside=versions[0])
        assert client.get("/model").json()["version"] == "2"
    assert set(load.statuses) == {200}


def test_node_that_dies_under_load_loses_nothing_that_may_not_be_sent_again(
    deployed: RayCluster, pictures: list[bytes]
) -> None:
    load = Load(deployed, pictures[0])
    with deployed.client() as client, load.running(clients=4):
        deployed.kill(deployed.nodes[0])
        assert client.get("/readyz").status_code == 200
    assert set(load.statuses) <= {200, *RETRIED}
    assert load.statuses[200] > 0


def test_readiness_tells_when_no_replica_is_left_and_when_there_is_one_again(
    deployed: RayCluster, pictures: list[bytes]
) -> None:
    with deployed.client() as client:
        assert client.get("/readyz").status_code == 200
        for node in [*deployed.nodes]:
            deployed.kill(node)
        eventually(lambda: client.get("/readyz").status_code == 503)
        late = client.post("/classify", content=pictures[0], headers={"X-Request-Timeout-Ms": "500"})
        assert (late.status_code, late.json()["error"]["type"]) == (504, "deadline_exceeded")
        deployed.add("third")
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/classify", content=pictures[0]).status_code == 200
