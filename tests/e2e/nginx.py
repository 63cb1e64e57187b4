"""nginx as a process of its own, with a configuration in a folder of its own."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from http.client import HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from tests.e2e.process import ROOT
from tests.runtimes import PATIENCE_S, wait_until

TEMPLATE = ROOT / "docker" / "nginx" / "aig.conf.template"
# A client may say what its address is. So tests can be several clients, and none uses up what another may do.
ADDRESS = "X-Test-Address"
# Programs of the system are often not on the path of those who are not root.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


class Nginx:
    """nginx with one server, on a free port of this machine.

    Args:
        folder: where everything of it goes; its certificates are made there.
        servers: what its http block has; `{port}` and `{folder}` stand for its own.

    Attributes:
        port: where it listens.
        certificate: of the server, which signed itself; made if the configuration names it.
    """

    def __init__(self, folder: Path, servers: str) -> None:
        program = shutil.which("nginx", path=_PATH)
        if program is None:
            pytest.skip("not run: there is no nginx")
        self._folder = folder
        self.certificate = folder / "fullchain.pem"
        self.port = _free_port()
        folder.mkdir()
        (folder / "aig.conf").write_text(servers.replace("{port}", str(self.port)).replace("{folder}", str(folder)))
        if "ssl_certificate" in servers:
            _certify(folder)
        (folder / "nginx.conf").write_text(_main(folder))
        with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as errors:
            command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
            self._process = subprocess.Popen(command, stdout=out, stderr=errors)

    def __enter__(self) -> Self:
        wait_until(self._listens)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def client(self, address: str = "192.0.2.1") -> httpx.Client:
        """A client over TLS that trusts the certificate, and has this address."""
        return httpx.Client(
            base_url=f"https://{self.address}",
            verify=self.tls(),
            headers={ADDRESS: address},
            timeout=PATIENCE_S,
            trust_env=False,
        )

    def tls(self) -> ssl.SSLContext:
        """What trusts its certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def send(self, request: str, address: str = "192.0.2.1") -> ssl.SSLSocket:
        """A connection over TLS on which these lines were sent, and an empty one; nothing is made of them."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        secure = self.tls().wrap_socket(plain, server_hostname="127.0.0.1")
        lines = [*request.splitlines(), "Host: test", f"{ADDRESS}: {address}", "", ""]
        secure.sendall("\r\n".join(lines).encode())
        return secure

    def access_log(self) -> list[str]:
        """What it has logged of requests."""
        return (self._folder / "stdout").read_text().splitlines()

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self._folder / "stderr").read_text()
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0


def shipped(upstream: str, **changed: str) -> str:
    """The project's configuration, with the values that docker-compose.yml gives it where they are not changed."""
    values = dict(_defaults(), EDGE_LISTEN="127.0.0.1:{port}", EDGE_UPSTREAM=upstream, EDGE_CERTIFICATES="{folder}")
    values.update(changed)
    # As the official image does it: what is no variable of its environment stays.
    filled = re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), TEMPLATE.read_text())
    return f"set_real_ip_from 127.0.0.1;\nreal_ip_header {ADDRESS};\n{filled}"


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer that comes on a connection, which it closes."""
    with connection, HTTPResponse(connection) as response:
        response.begin()
        if response.status == 429:
            assert response.headers["retry-after"] == "1"
        return response.status, json.loads(response.read())


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and type of an error that is told as the service tells errors."""
    error = response.json()["error"]
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    return response.status_code, error["type"]


def _defaults() -> dict[str, str]:
    compose = (ROOT / "docker-compose.yml").read_text()
    lines = re.findall(r"^ {6}(EDGE_\w+): (?:\$\{EDGE_\w+:?-([^}]*)\}|(\S+))$", compose, re.MULTILINE)
    return {name: default or fixed for name, default, fixed in lines}


def _main(folder: Path) -> str:
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""  # else it becomes one who cannot write here
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    written = "\n".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    return f"""
        {user}
        daemon off;
        pid {folder / "pid"};
        events {{}}
        http {{
            access_log off;
            {written}
            include {folder / "aig.conf"};
        }}
    """


def _certify(folder: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("not run: there is no openssl to make a certificate with")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "privkey.pem"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = [openssl, "req", "-x509", *key, *names, "-days", "2", "-out", "fullchain.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
