from __future__ import annotations

import json
import math
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins
from service.engine.runtimes.base import Runtime
from service.engine.runtimes.selection import open_runtime
from service.images.decoding import ImageDecoder
from service.settings import Settings
from tests.e2e import dashboards
from tests.e2e.process import ROOT
from tests.e2e.stack import DOWNLOAD_S, PROMETHEUS_FILES, Sample, Stack, docker
from tests.image_files import encoded, hollow_png, photograph
from tests.runtimes import PATIENCE_S

pytestmark = pytest.mark.timeout(2 * DOWNLOAD_S)  # whichever runs first builds the image

_DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
_GARBAGE = {
    b"": "empty_image",
    b"no image": "not_an_image",
    hollow_png(50_000, 50_000): "too_many_pixels",
    encoded(photograph(50, 40), "JPEG")[:-40]: "corrupt_image",
}


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Images of the network's own size and large photographs."""
    small = [encoded(photograph(32, 32, seed)) for seed in range(12)]
    return small + [encoded(photograph(2400, 1800, seed), "JPEG") for seed in range(3)]


@pytest.fixture(scope="module")
def shipped() -> Runtime:
    """The model that the containers serve, in this process."""
    return open_runtime(ROOT / Settings.model_fields["model"].default, "onnx", "cpu")


def _run(runtime: Runtime, data: bytes) -> LogitsAndMargins:
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**8, max_pixels=10**8)
    return runtime.run(decoder.decode(data)[None], np.zeros(1, np.float32))


def _classify(stack: Stack, images: list[bytes]) -> list[dict[str, Any]]:
    with stack.client() as client:
        return [client.post("/classify?top_k=10", content=data).json() for data in images]


def test_images_of_both_kinds_are_classified_as_the_model_does_it(
    running: Stack, images: list[bytes], shipped: Runtime
) -> None:
    for data, answer in zip(images, _classify(running, images), strict=True):
        logits, margins = _run(shipped, data)
        assert answer["predictions"][0]["index"] == logits[0].argmax()
        decided = [block for block in answer["inference_graph"]["blocks"] if block["gated"]]
        for block, margin in zip(decided, margins[0], strict=True):
            assert block["margin"] == pytest.approx(margin, abs=shipped.manifest.verification.margin_tolerance)
            assert block["executed"] == (block["margin"] > shipped.manifest.gate_threshold)


def test_prometheus_counts_exactly_what_was_sent(running: Stack, images: list[bytes]) -> None:
    counters = r"aig_(images_total|block_executed_total|macs_sum)|aig_requests_total.*route=/classify(?!/)"
    expected = Counter[Sample](running.samples(counters))
    answers = _classify(running, images * 4)
    refusals = _classify(running, list(_GARBAGE) * 2)
    assert [refused["error"]["type"] for refused in refusals] == list(_GARBAGE.values()) * 2
    of_model = {("model", "convnet-aig-38-cifar10"), ("version", "1")}
    for outcome, count in {"ok": len(answers), **dict.fromkeys(_GARBAGE.values(), 2)}.items():
        expected["aig_images_total", frozenset({("outcome", outcome), *of_model})] += count
        expected["aig_requests_total", frozenset({("route", "/classify"), ("outcome", outcome)})] += count
    for answer in answers:
        expected["aig_macs_sum", frozenset(of_model)] += answer["compute"]["macs"]
        for block in answer["inference_graph"]["blocks"]:
            labels = frozenset({("block", block["name"]), ("stage", str(block["stage"])), *of_model})
            expected["aig_block_executed_total", labels] += block["executed"]
    running.wait_for(
        '{__name__=~"aig_images_total|aig_block_executed_total|aig_macs_sum"} or aig_requests_total{route="/classify"}',
        expected,
    )


def test_every_panel_has_data(running: Stack, images: list[bytes]) -> None:
    # Where these containers run there is no GPU to tell of.
    queries = [query for query in dashboards.read_queries(_DASHBOARDS) if "aig_device_" not in query.expression]
    if not queries:
        pytest.skip(f"not run: there is no dashboard in {_DASHBOARDS.relative_to(ROOT)}")
    assert {query.source for query in queries} == {"prometheus"}
    give_up = time.monotonic() + 90
    problems = ["nothing was asked"]
    while problems and time.monotonic() < give_up:
        _classify(running, images + list(_GARBAGE))
        problems = [found for query in queries if (found := dashboards.problem(query, running.prometheus_url))]
    assert not problems, "\n".join(problems)


def test_rules_and_configuration_satisfy_promtool(running: Stack) -> None:
    running.compose("exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")


def test_service_can_write_nothing_but_its_cache_and_has_no_rights(running: Stack) -> None:
    attempt = (
        "import pathlib\n"
        "for folder in ('/', '/app', '/opt/venv', '/etc', '/model', '/tmp', '/var/cache/convnet-aig'):\n"
        "    try:\n        pathlib.Path(folder, 'probe').touch(); print(folder)\n    except OSError: pass"
    )
    assert running.python(attempt).split() == ["/tmp", "/var/cache/convnet-aig"]
    status = running.python("print(open('/proc/1/status').read())")
    told = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"


def test_second_container_remembers_what_the_first_measured(running: Stack) -> None:
    def measured() -> list[float]:
        with running.client() as client:
            return [candidate["image_ms"] for candidate in client.get("/model").json()["engine"]["candidates"]]

    first, container = measured(), running.state("{{.Id}}")
    running.compose("up", "--detach", "--wait", "--force-recreate", "app")
    assert running.state("{{.Id}}") != container
    assert measured() == first


def test_killed_server_is_started_again(running: Stack, images: list[bytes]) -> None:
    before = int(running.state("{{.RestartCount}}"))
    # Number 1 is the init process that Compose adds; the first after it is the server.
    kill = (
        "import os, pathlib, signal\n"
        "numbers = sorted(int(path.name) for path in pathlib.Path('/proc').glob('[0-9]*'))\n"
        "assert b'python\\0-m\\0service' in pathlib.Path(f'/proc/{numbers[1]}/cmdline').read_bytes()\n"
        "os.kill(numbers[1], signal.SIGKILL)"
    )
    running.compose("exec", "--detach", "app", "python", "-c", kill)  # the container takes this with it when it ends
    give_up = time.monotonic() + PATIENCE_S
    while int(running.state("{{.RestartCount}}")) == before:
        assert time.monotonic() < give_up, "it was not started again"
        time.sleep(0.1)
    running.up()
    assert _classify(running, images[:1])[0]["predictions"]


class _Load:
    """Clients that send one image after the other, each on a connection of its own, until they are refused.

    The server asks for a body (100 Continue) when it has taken a request on, so that both sides know which it has.
    """

    def __init__(self, address: str, images: list[bytes], answers: list[dict[str, Any]]) -> None:
        self._address, self._images, self._answers = address, images, answers
        self._outcomes: Counter[str] = Counter()
        self.has_begun = Event()

    def run(self, clients: int) -> Counter[str]:
        """Send until every client has been refused; return how often each thing happened."""
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(self._send, range(clients)))
        return self._outcomes

    def _send(self, number: int) -> None:
        outcome = ""
        while outcome != "refused":
            number += 1
            outcome = self._ask(number % len(self._images))
            self._outcomes[outcome] += 1
            if self._outcomes["right"] == 100:
                self.has_begun.set()

    def _ask(self, index: int) -> str:
        data = self._images[index]
        headers = f"Host: x\r\nExpect: 100-continue\r\nContent-Length: {len(data)}\r\n\r\n"
        is_accepted = False
        try:
            with socket.create_connection((self._address, 8000), PATIENCE_S) as connection:
                connection.sendall(f"POST /classify?top_k=10 HTTP/1.1\r\n{headers}".encode())
                with connection.makefile("rb") as stream:
                    status, body = _read_answer(stream)
                    if status == 100:
                        is_accepted = True
                        connection.sendall(data)
                        status, body = _read_answer(stream)
        except (OSError, EOFError):
            return "lost" if is_accepted else "refused"
        if status == 200:
            return "right" if _same(json.loads(body), self._answers[index]) else "wrong"
        return json.loads(body)["error"]["type"]


def _read_answer(stream: Any) -> tuple[int, bytes]:
    """The status and the body of the next answer; EOFError where the server hangs up before its end."""
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line.decode().lower())
    if not line:
        raise EOFError
    (length,) = [int(line.split(":")[1]) for line in lines if line.startswith("content-length:")] or [0]
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return int(lines[0].split()[1]), body


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[part] == other[part] for part in ("layers", "compute")) and math.isclose(
        one["predictions"][0]["probability"], other["predictions"][0]["probability"], rel_tol=1e-3
    )


def test_stop_under_load_answers_all_that_was_accepted(running: Stack, images: list[bytes]) -> None:
    if sys.platform != "linux":
        pytest.skip("not run: here only Docker's proxy reaches the service, and it hangs up instead of refusing")
    load = _Load(running.address(), images, _classify(running, images))
    with ThreadPoolExecutor(1) as pool:
        outcomes = pool.submit(load.run, 16)
        assert load.has_begun.wait(PATIENCE_S)
        docker("stop", f"{running.project}-app-1")
        happened = outcomes.result()
    assert happened["right"] >= 100
    assert happened["refused"] == 16
    assert set(happened) <= {"right", "refused", "stopping", "overloaded"}, happened
    assert running.state("{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    assert "Traceback" not in running.compose("logs", "app")


def test_stopped_service_fires_the_alert(running: Stack) -> None:
    if not list(PROMETHEUS_FILES.glob("rules/*.yml")):
        pytest.skip(f"not run: there is no rule in {PROMETHEUS_FILES.relative_to(ROOT)}/rules")
    firing = 'sum by (alertname) (ALERTS{alertname="AigTargetDown", alertstate="firing"})'
    running.wait_for(firing, {})
    running.compose("stop", "app")
    running.wait_for(firing, {("", frozenset({("alertname", "AigTargetDown")})): 1})
    running.up()
    running.wait_for(firing, {})
