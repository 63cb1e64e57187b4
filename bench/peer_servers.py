"""The servers to compare: what each is started with, and how one is installed, started, measured and stopped.

Each peer has a program in `peers/`, which says what of the peer's documentation its configuration follows, and a
virtual environment of its own. Linux only, see `bench.process_tree`.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from bench.process_tree import ProcessTree

_ROOT = Path(__file__).resolve().parent.parent
_PEERS = _ROOT / "bench" / "peers"
_VENVS = _ROOT / ".bench" / "venvs"
_HOST = "127.0.0.1"
_START_SECONDS = 90.0


class ServerError(RuntimeError):
    """A server could not be installed or started, or did not answer; the message says which and why."""


@dataclass(frozen=True)
class Peer:
    """One server to compare.

    Attributes:
        name: what tables call it.
        command: its command line; in it and in `environment`, {python} is its interpreter, {peers} the folder of the
            peers' programs, {model} that of the artifact, {port} the port, {scratch} a folder that is removed after.
        requirements: file under `peers/requirements` and name of its virtual environment; None to use this one.
        interpreter: the Python that makes the virtual environment.
        environment: environment variables beyond those every peer gets.
        path: where images are posted to.
        headers: what to send along with a JPEG.
        parse: turns the body of an answer into {"predictions": …, "executed": …, …}.
    """

    name: str
    command: str
    requirements: str | None = None
    interpreter: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/classify"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})
    parse: Callable[[bytes], Any] = json.loads

    @property
    def venv(self) -> Path | None:
        """The folder of its virtual environment, if it has one of its own."""
        return _VENVS / self.requirements if self.requirements else None

    @property
    def python(self) -> str:
        """The interpreter that runs it."""
        return str(self.venv / "bin" / "python") if self.venv else sys.executable


def _parse_triton(body: bytes) -> Any:
    """A bare body is answered in kind: JSON that describes the output, its length in four bytes, then the output."""
    _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    return json.loads(body[end + 4 :])


SERVICE = Peer("this service", "{python} -m service serve --model {model} --port {port} --log-level warning")

PEERS: tuple[Peer, ...] = (
    Peer(
        "FastAPI",
        "{python} -m uvicorn fastapi_app:app --app-dir {peers} --port {port} --workers 2 --log-level warning",
        requirements="fastapi",
    ),
    Peer("LitServe", "{python} {peers}/litserve_app.py --port {port}", requirements="litserve"),
    Peer(
        "BentoML",
        "{python} -m bentoml serve bentoml_app:Classification --working-dir {peers} --host 127.0.0.1 --port {port} -q",
        requirements="bentoml",
        environment={"BENTOML_HOME": "{scratch}", "BENTOML_DO_NOT_TRACK": "true"},
    ),
    Peer(
        "mosec",
        "{python} {peers}/mosec_app.py --address 127.0.0.1 --port {port} --log-level warning",
        requirements="mosec",
        path="/inference",
    ),
    Peer("MLServer", "{python} {peers}/mlserver_app.py --port {port}", requirements="mlserver"),
    Peer(
        "Ray Serve",
        "{python} {peers}/ray_app.py --port {port}",
        requirements="ray",
        environment={
            "RAY_TMPDIR": "{scratch}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "{scratch}/haproxy/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": "{scratch}/haproxy/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "{scratch}/haproxy",
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "{scratch}/haproxy/server-state",
        },
    ),
    Peer(
        "Triton",
        "{python} {peers}/triton_app.py --port {port}",
        requirements="triton",
        interpreter="/usr/bin/python3",  # Triton's Python backend is linked against the system's libpython
        environment={"PYTRITON_HOME": "{scratch}"},
        path="/v2/models/classifier/infer",
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"},
        parse=_parse_triton,
    ),
)


class Server:
    """A server that is running and has answered."""

    def __init__(self, peer: Peer, port: int, processes: ProcessTree) -> None:
        self.url = f"http://{_HOST}:{port}{peer.path}"
        self.headers = peer.headers
        self._peer = peer
        self._port = port
        self._processes = processes

    def classify(self, jpeg: bytes) -> Any:
        """Post one image on a connection of its own; return {"predictions": …, "executed": …, …}."""
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=10)
        try:
            connection.request("POST", self._peer.path, jpeg, dict(self.headers))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ServerError(f"{self._peer.name} answered {response.status}: {body[:200]!r}")
        return self.parse(body)

    def parse(self, body: bytes) -> Any:
        """Turn the body of an answer into {"predictions": …, "executed": …, …}."""
        return self._peer.parse(body)

    def resident_bytes(self) -> int:
        """Memory of all its processes together; what several of them share is counted once (PSS)."""
        return self._processes.resident_bytes()


def install(peer: Peer, progress: Callable[[str], None]) -> None:
    """Make the peer's virtual environment, unless it stands and was made for the same requirements."""
    if peer.venv is None:
        return
    requirements = _PEERS / "requirements" / f"{peer.requirements}.txt"
    digest = hashlib.sha256(peer.interpreter.encode() + requirements.read_bytes()).hexdigest()
    stamp = peer.venv / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == digest:
        return
    progress(f"installing {peer.name} in {peer.venv.relative_to(_ROOT)} ...")
    shutil.rmtree(peer.venv, ignore_errors=True)
    pip = (peer.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement")
    try:
        subprocess.run([peer.interpreter, "-m", "venv", peer.venv], check=True)
        subprocess.run([*pip, requirements], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerError(f"{peer.name} could not be installed: {error}") from error
    stamp.write_text(digest)


@contextmanager
def running(peer: Peer, model_dir: Path, port: int) -> Iterator[Server]:
    """Start the server, wait until it answers an image, and leave none of its processes behind."""
    with socket.socket() as probe:
        if probe.connect_ex((_HOST, port)) == 0:
            raise ServerError(f"{peer.name} cannot start: port {port} is taken")
    with tempfile.TemporaryDirectory(prefix="aig-", ignore_cleanup_errors=True) as scratch:
        names = {"python": peer.python, "peers": _PEERS, "model": model_dir.resolve(), "port": port, "scratch": scratch}
        command = [part.format(**names) for part in peer.command.split()]
        environment = {name: value.format(**names) for name, value in peer.environment.items()}
        environment = {**os.environ, "AIG_BENCH_MODEL": str(names["model"]), "TMPDIR": scratch, **environment}
        log = Path(scratch) / "server.log"
        with log.open("wb") as output:
            processes = ProcessTree(command, _ROOT, environment, output)
        try:
            server = Server(peer, port, processes)
            _wait_until_it_answers(server, peer, processes, log)
            yield server
        finally:
            processes.stop()


def _wait_until_it_answers(server: Server, peer: Peer, processes: ProcessTree, log: Path) -> None:
    jpeg = io.BytesIO()
    Image.effect_noise((32, 32), 64).convert("RGB").save(jpeg, "JPEG")
    deadline = time.monotonic() + _START_SECONDS
    problem = "nothing listens"
    while time.monotonic() < deadline:
        try:
            if len(server.classify(jpeg.getvalue())["predictions"]) == 5:
                return
        except (OSError, http.client.HTTPException, ServerError, LookupError, ValueError) as error:
            problem = str(error) or type(error).__name__
        time.sleep(0.1)
        if not processes.processes():
            problem = "it has ended"
            break
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
    raise ServerError(f"{peer.name} did not answer an image: {problem}; the end of its log:\n{tail}")
