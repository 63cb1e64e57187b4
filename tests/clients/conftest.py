"""Both clients behind the same methods, and a service that runs the model that ships."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convnet_aig_client import AsyncClient, Client
from service.engine.runtimes.selection import open_runtime
from tests.e2e.process import ROOT
from tests.service.http_server import RunningServer, http_serving

MakeClient = Callable[..., Any]


class Awaited:
    """An `AsyncClient` whose methods return when they are done."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client, self._run = client, runner.run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._run(getattr(self._client, name)(*arguments, **options))

    def __repr__(self) -> str:
        return repr(self._client)

    def classify_files(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        stream = self._client.classify_files(*arguments, **options)
        try:
            while True:
                yield self._run(anext(stream))
        except StopAsyncIteration:
            return
        finally:
            self._run(stream.aclose())


@contextmanager
def _asynchronous(*arguments: Any, **settings: Any) -> Iterator[Awaited]:
    with asyncio.Runner() as runner:
        client = AsyncClient(*arguments, **settings)
        runner.run(client.__aenter__())
        try:
            yield Awaited(client, runner)
        finally:
            runner.run(client.__aexit__(None, None, None))


@pytest.fixture(params=[Client, _asynchronous], ids=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes a client, of each of the two kinds, and closes it in the end."""
    with ExitStack() as clients:
        # Loading certificates takes longer than any request here, and there is nothing to verify.
        yield lambda *arguments, **settings: clients.enter_context(request.param(*arguments, verify=False, **settings))


@pytest.fixture(scope="session")
def shipped() -> Iterator[RunningServer]:
    """A service that runs the model that ships."""
    runtime = open_runtime(ROOT / "model_repository/convnet-aig-38-cifar10/1", "onnx", "cpu")
    with http_serving(runtime, queue_size=64) as server:
        yield server


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cat.jpg and ship.png."""
    folder = tmp_path_factory.mktemp("photographs")
    samples = ROOT / "service/ui/static/samples"
    Image.open(samples / "cat.webp").convert("RGB").save(folder / "cat.jpg", quality=95)
    Image.open(samples / "ship.webp").convert("RGB").save(folder / "ship.png")
    return folder


def url_of(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"
