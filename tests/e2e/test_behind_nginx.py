from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import Browser, expect

from service.settings import Settings
from tests.e2e.browser import visiting
from tests.e2e.nginx import Nginx, answer_on, error_of, shipped
from tests.e2e.process import ServerProcess
from tests.runtimes import PATIENCE_S

_MOST, _PENDING = (Settings.model_fields[name].default for name in ("max_bytes", "max_pending_bytes"))
_HEALTH = "GET /aig/healthz HTTP/1.1\nConnection: close"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of nginx as it comes, but for the size that it allows: HTTP/1.0 without keep-alive to the service."""
    location = f"location / {{ proxy_pass {server.url}; client_max_body_size 20m; }}"
    servers = f"server {{ listen 127.0.0.1:{{port}}; {location} }}"
    with Nginx(tmp_path_factory.mktemp("plain") / "nginx", servers) as nginx:
        url = f"http://{nginx.address}"
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False, verify=False) as client:
            yield client


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, server: ServerProcess) -> Iterator[Nginx]:
    """The project's nginx in front of the shared server."""
    with Nginx(tmp_path_factory.mktemp("edge") / "nginx", shipped(f"127.0.0.1:{server.port}")) as nginx:
        yield nginx


def _post(client: httpx.Client, path: str, data: bytes, kind: str = "image/png") -> httpx.Response:
    return client.post(path, content=data, headers={"content-type": kind})


@pytest.mark.parametrize(
    ("path", "error"), [("/classify", (415, "unsupported_media_type")), ("/nothing", (404, "not_found"))]
)
def test_refusal_of_a_large_body_always_comes_through(
    plain: httpx.Client, edge: Nginx, path: str, error: tuple[int, str]
) -> None:
    large = bytes(10_000_000)
    assert {error_of(_post(plain, path, large, "text/plain")) for _ in range(20)} == {error}
    if path == "/classify":  # elsewhere the project's own nginx takes no large bodies
        for _ in range(20):
            with edge.client() as client:
                assert error_of(_post(client, f"/aig{path}", large, "text/plain")) == error


def test_image_is_classified_through_nginx_as_it_comes(plain: httpx.Client, pictures: list[bytes]) -> None:
    assert [_post(plain, "/classify", picture).status_code for picture in pictures] == [200] * len(pictures)


def test_images_are_classified_below_the_prefix(edge: Nginx, server: ServerProcess, pictures: list[bytes]) -> None:
    with edge.client() as client, server.client() as direct:
        through, straight = (
            _post(who, path, pictures[0]) for who, path in ((client, "/aig/classify"), (direct, "/classify"))
        )
        for answer in (through, straight):
            assert answer.status_code == 200
        assert through.json()["predictions"][0]["index"] == straight.json()["predictions"][0]["index"]
        batch = client.post("/aig/classify/batch", files=[("files", picture) for picture in pictures])
        assert len(batch.json()["results"]) == len(pictures)
        assert client.post("/aig/classify", files={"file": pictures[0]}).status_code == 200


@pytest.mark.parametrize("model", ["/models/small", "/models/small/versions/1"])
def test_model_that_is_named_takes_as_much_as_the_default_one(edge: Nginx, pictures: list[bytes], model: str) -> None:
    with edge.client() as client:
        small = _post(client, f"/aig{model}/classify?top_k=1", pictures[0])
        assert (small.status_code, len(small.json()["predictions"])) == (200, 1)
        assert error_of(_post(client, f"/aig{model}/classify", bytes(_MOST))) == (415, "not_an_image")
        batch = client.post(f"/aig{model}/classify/batch", files=[("files", picture) for picture in pictures])
        assert len(batch.json()["results"]) == len(pictures)


def test_documentation_loads_and_calls_below_the_prefix(edge: Nginx) -> None:
    with edge.client() as client:
        page = client.get("/aig/docs").text
        named = set(re.findall(r"(?:src|href)=\"(/[^\"]+)\"", page)) | set(re.findall(r"url: '([^']+)'", page))
        assert "/aig/openapi.json" in named
        assert len(named) >= 3
        assert {path: client.get(path).status_code for path in named} == dict.fromkeys(named, 200)
        document = client.get("/aig/openapi.json").json()
        assert [server["url"] for server in document["servers"]] == ["/aig"]
        assert "/classify" in document["paths"]


def test_page_and_its_files_load_below_the_prefix(edge: Nginx) -> None:
    with edge.client() as client:
        assert client.get("/aig").headers["location"] == "/aig/"
        page = client.get("/aig/").text
        named = {urljoin("/aig/", name) for name in re.findall(r"(?:src|href)=\"(ui/[^\"]+)\"", page)}
        assert len(named) > 20
        assert {path: client.get(path).status_code for path in named} == dict.fromkeys(named, 200)


def test_page_works_below_the_prefix_in_a_browser(browser: Browser, edge: Nginx) -> None:
    with visiting(browser, f"https://{edge.address}/aig/", ignore_https_errors=True) as visitor:
        visitor.open()
        visitor.page.get_by_role("button", name="Sample: cat").click()
        (card,) = visitor.answered(1)
        expect(card.locator(".state")).to_contain_text("blocks executed")
        expect(visitor.page.locator("#live .notice")).to_contain_text("does not show its figures")
        assert visitor.page.locator("nav a", has_text="API").evaluate("a => a.pathname") == "/aig/docs"
        visitor.keep_screenshot("behind-nginx")
        visitor.page.goto(f"https://{edge.address}/aig/docs")
        expect(visitor.page.locator(".servers option")).to_have_text("/aig")


def test_service_tells_the_limits_of_a_body_where_both_have_one(edge: Nginx) -> None:
    with edge.client() as client:
        assert error_of(_post(client, "/aig/classify", bytes(_MOST))) == (415, "not_an_image")
        for declared, words in (_MOST + 1, f"more than {_MOST} bytes"), (2 * _MOST, "to this path"):
            told = f"POST /aig/classify HTTP/1.1\nContent-Type: image/png\nContent-Length: {declared}"
            status, answer = answer_on(edge.send(told))
            assert (status, answer["error"]["type"]) == (413, "image_too_large")
            assert words in answer["error"]["message"]


def test_batch_may_have_as_much_as_the_service_holds(edge: Nginx) -> None:
    kind = "Content-Type: multipart/form-data; boundary=a"
    for declared, words in (_PENDING + 1, f"more than {_PENDING} bytes"), (2 * _PENDING, "to this path"):
        status, answer = answer_on(edge.send(f"POST /aig/classify/batch HTTP/1.1\n{kind}\nContent-Length: {declared}"))
        assert (status, answer["error"]["type"]) == (413, "image_too_large")
        assert words in answer["error"]["message"]


def test_upload_that_takes_too_long_is_told_so_by_the_service(edge: Nginx) -> None:
    head = "POST /aig/classify HTTP/1.1\nContent-Type: image/png\nContent-Length: 9\nX-Request-Timeout-Ms: 300"
    status, answer = answer_on(edge.send(head))
    assert (status, answer["error"]["type"]) == (408, "upload_timeout")


def test_client_that_sends_too_much_is_refused_and_others_are_not(tmp_path: Path, server: ServerProcess) -> None:
    slow = shipped(f"127.0.0.1:{server.port}", EDGE_IMAGE_RATE="1r/s")
    request = "POST /aig/classify HTTP/1.1\nContent-Type: text/plain\nContent-Length: 0"
    with Nginx(tmp_path / "nginx", slow) as nginx, ExitStack() as sent:
        for _ in range(60):
            last = sent.enter_context(nginx.send(request))
        status, answer = answer_on(last)
        assert (status, answer["error"]["type"]) == (429, "rate_limited")
        assert answer_on(nginx.send(request, "192.0.2.2"))[0] == 415


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("2001:db8::a", "2001:db8::a:b:c:d", "2001:db8:0:1::a")],
)
def test_client_has_so_many_requests_in_progress(
    tmp_path: Path, server: ServerProcess, one: str, same: str, other: str
) -> None:
    upload = "POST /aig/classify HTTP/1.1\nContent-Type: image/png\nContent-Length: 9"
    few = shipped(f"127.0.0.1:{server.port}", EDGE_REQUESTS_AT_ONCE="2")
    with Nginx(tmp_path / "nginx", few) as nginx, nginx.send(upload, one), nginx.send(upload, one):
        status, answer = answer_on(nginx.send(_HEALTH, same))
        assert (status, answer["error"]["type"]) == (429, "too_many_requests_at_once")
        assert answer_on(nginx.send(_HEALTH, other))[0] == 200


def test_request_has_one_id_in_the_answer_and_in_both_logs(edge: Nginx) -> None:
    with edge.client() as client:
        for path in ("/aig/healthz", "/aig/metrics"):
            given = client.get(path, params={"secret": "1"}, headers={"x-request-id": f"mine{path}"})
            assert given.headers.get_list("x-request-id") == [f"mine{path}"]
            for sent in ({}, {"x-request-id": 'a "quote"'}):
                assert re.fullmatch("[0-9a-f]{32}", client.get(path, headers=sent).headers["x-request-id"])
    (line,) = [line for line in edge.access_log() if line.endswith(" mine/aig/healthz")]
    assert '"GET /aig/healthz" 200 ' in line
    assert not any("secret" in line for line in edge.access_log())


@pytest.mark.parametrize(
    "path", ["/aig/metrics", "/aig/%6detrics", "/aig//metrics", "/aig/ui/../metrics", "/metrics", "/", "/aigmetrics"]
)
def test_neither_metrics_nor_what_is_outside_the_prefix_is_shown(edge: Nginx, path: str) -> None:
    for method in ("GET", "POST"):
        status, answer = answer_on(edge.send(f"{method} {path} HTTP/1.1"))
        assert (status, answer["error"]["type"]) == (404, "not_found")


def test_service_is_shown_without_a_prefix_where_none_is_given(tmp_path: Path, server: ServerProcess) -> None:
    with (
        Nginx(tmp_path / "nginx", shipped(f"127.0.0.1:{server.port}", EDGE_PREFIX="")) as nginx,
        nginx.client() as client,
    ):
        claimed = {"x-forwarded-prefix": "/elsewhere"}
        assert '"/static-offline-docs/' in client.get("/docs", headers=claimed).text
        assert error_of(client.get("/metrics")) == (404, "not_found")
        assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (f"GET /aig/{'a' * 9000} HTTP/1.1", (431, "head_too_large")),
        (f"{_HEALTH}\nX-Long: {'a' * 9000}", (431, "head_too_large")),
        ("GET nothing HTTP/1.1", (400, "malformed_request")),
        (f"{_HEALTH}\nContent-Length: many", (400, "malformed_request")),
    ],
    ids=["path", "header", "line", "length"],
)
def test_request_that_cannot_be_read_is_told_why(edge: Nginx, head: str, error: tuple[int, str]) -> None:
    status, answer = answer_on(edge.send(head))
    assert (status, answer["error"]["type"]) == error


def test_service_that_does_not_answer_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        hasty = shipped(f"{host}:{port}", EDGE_READ_TIMEOUT="200ms")
        with Nginx(tmp_path / "nginx", hasty) as nginx, nginx.client() as client:
            assert error_of(_post(client, "/aig/classify", b"image")) == (504, "deadline_exceeded")


def test_image_is_sent_once_even_where_the_connection_breaks(tmp_path: Path) -> None:
    received = []

    def serve() -> None:
        """Answer the first request of every connection, and close it at the second."""
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b""):
                    received.append(lines.readline())
                    while lines.readline().strip():
                        pass
                    lines.read(len(b"image"))
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=serve, daemon=True).start()
        host, port = listening.getsockname()
        with Nginx(tmp_path / "nginx", shipped(f"{host}:{port}")) as nginx, nginx.client() as client:
            assert _post(client, "/aig/classify", b"image").status_code == 200
            assert error_of(_post(client, "/aig/classify", b"image")) == (502, "unreachable")
            assert received == [b"POST /classify HTTP/1.1\r\n"] * 2
