from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.ui.page import FILES
from tests.e2e.process import ROOT
from tests.service.server import Server

_ALL = sorted(path.relative_to(FILES).as_posix() for path in FILES.rglob("*") if path.is_file())


def _requests(server: Server) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(server.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == "aig_requests_total"]
    return {(sample.labels["route"], sample.labels["outcome"]): sample.value for sample in samples}


def test_page_is_at_the_root(server: Server) -> None:
    answer = server.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text == (FILES / "index.html").read_text()


@pytest.mark.parametrize("name", _ALL)
def test_every_file_is_served_with_its_type_and_the_policy(server: Server, name: str) -> None:
    answer = server.get(f"/ui/{name}")
    assert (answer.status_code, answer.content) == (200, (FILES / name).read_bytes())
    types = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg", "webp": "image/webp"}
    assert answer.headers["content-type"].startswith(types[name.rsplit(".")[-1]])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'; img-src 'self' blob: data:;" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_browser_asks_each_time_and_is_sent_only_what_changed(server: Server) -> None:
    first = server.get("/")
    assert first.headers["cache-control"] == "no-cache"
    again = server.get("/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/ui/", "/ui/none.js", "/ui/scripts", "/ui/%2e%2e/page.py", "/ui//etc/hostname"])
def test_nothing_but_the_files_is_served(server: Server, path: str) -> None:
    answer = server.get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/ui/icon.svg"])
def test_other_methods_are_refused_as_everywhere(server: Server, path: str) -> None:
    answer = server.post(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_metrics_know_two_routes_however_many_files_are_asked_for(server: Server) -> None:
    before = _requests(server)
    for path in ("/", "/ui/icon.svg", "/ui/scripts/main.js", "/ui/made-up-1", "/ui/made-up-2"):
        server.get(path)
    counted = {key: value - before.get(key, 0) for key, value in _requests(server).items()}
    page = {key: count for key, count in counted.items() if count and key[0] != "/metrics"}
    assert page == {("/", "ok"): 1, ("/ui/{path:path}", "ok"): 2, ("/ui/{path:path}", "not_found"): 2}


def test_page_is_light() -> None:
    sizes = {name: (FILES / name).stat().st_size for name in _ALL}
    samples = sum(size for name, size in sizes.items() if name.startswith("samples/"))
    assert sum(sizes.values()) - samples < 150_000
    assert samples < 50_000


def test_every_script_is_fetched_at_once() -> None:
    """A browser that is not told finds modules only by reading those that import them, one after the other."""
    told = set(re.findall(r'"ui/(scripts/\w+\.js)"', (FILES / "index.html").read_text()))
    assert told == {name for name in _ALL if name.startswith("scripts/")}


def test_every_file_is_packaged() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["service.ui"]
    package = Path(FILES.parent)
    packaged = {path for pattern in patterns for path in package.glob(f"{pattern}/*") if path.is_file()}
    assert packaged == {FILES / name for name in _ALL}
