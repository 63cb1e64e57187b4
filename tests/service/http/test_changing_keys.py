"""API keys whose file changes while the service runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.access.key_file import KeyFile
from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import pngs
from tests.service.server import Server, serving

Write = Callable[..., None]

SOUND = pngs(1)[0]


def _table(secret: str, name: str, limits: str = "") -> str:
    return f'[keys.{name}]\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{limits}\n'


def _status(server: Server, secret: str, path: str = "/model") -> int:
    return server.get(path, headers={"X-API-Key": secret}).status_code


def _classified(server: Server, secret: str) -> int:
    headers = {"X-API-Key": secret, "content-type": "image/png"}
    return server.post("/classify", content=SOUND, headers=headers).status_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def write(path: Path) -> Write:
    """Replaces the file as a whole."""

    def replace(*tables: str) -> None:
        written = path.with_suffix(".new")
        written.write_text("".join(tables))
        written.replace(path)

    return replace


@pytest.fixture
def server(path: Path, write: Write, runtime: OnnxRuntime) -> Iterator[Server]:
    write(_table("a", "alice", "images_per_second = 0.001"), _table("b", "bob"))
    with serving(runtime, KeyFile(path)) as started:
        yield started


def test_key_that_is_added_works_and_one_that_is_removed_does_not(server: Server, write: Write) -> None:
    assert [_status(server, secret) for secret in "abc"] == [200, 200, 401]
    assert _classified(server, "b") == 200
    write(_table("a", "alice"), _table("c", "carol", "metrics = true"))
    assert [_status(server, secret) for secret in "abc"] == [200, 401, 200]
    assert _classified(server, "c") == 200
    told = server.get("/metrics", headers={"X-API-Key": "c"}).text
    assert 'aig_key_images_total{key="carol",model="small"} 1.0' in told
    assert 'aig_key_images_total{key="bob",model="small"} 1.0' in told  # counters do not go back, nor away


def test_file_that_is_written_to_in_place_counts_as_well(server: Server, path: Path) -> None:
    with path.open("a") as file:
        file.write(_table("c", "carol"))
    assert _status(server, "c") == 200


def test_key_that_is_as_it_was_has_spent_what_it_had(server: Server, write: Write) -> None:
    assert [_classified(server, "a") for _ in range(2)] == [200, 429]
    write(_table("a", "alice", "images_per_second = 0.001"), _table("c", "carol"))
    assert _classified(server, "a") == 429
    write(_table("a", "alice", "images_per_second = 1000"))
    assert _classified(server, "a") == 200


def test_secret_that_was_replaced_opens_nothing(server: Server, write: Write) -> None:
    write(_table("z", "alice"))
    assert [_status(server, secret) for secret in "az"] == [401, 200]


@pytest.mark.parametrize("broken", ["[keys.alice", "", "[keys.alice]\nsha256 = 'short'\n", None], ids=str)
def test_broken_file_keeps_the_keys_and_is_told_once(
    server: Server, path: Path, write: Write, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if broken is None:
        path.unlink()
    else:
        write(broken)
    with caplog.at_level(logging.INFO, logger="service.access"):
        assert [_status(server, secret) for secret in "abcab"] == [200, 200, 401, 200, 200]
    (line,) = caplog.records
    assert line.levelname == "ERROR"
    assert line.getMessage().startswith("the API keys stay as they were: ")
    write(_table("c", "carol"))
    assert [_status(server, secret) for secret in "abc"] == [401, 401, 200]


def test_request_in_progress_ends_with_the_key_it_began_with(server: Server, write: Write) -> None:
    async def body() -> object:
        yield SOUND[:10]
        write(_table("c", "carol"))
        yield SOUND[10:]

    headers = {"X-API-Key": "b", "content-type": "image/png"}
    assert server.post("/classify", content=body(), headers=headers).status_code == 200
    assert _status(server, "b") == 401
