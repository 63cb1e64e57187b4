"""The application on an event loop of its own, called from any thread without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from service.access.keys import KeySource
from service.app import Service, create_app
from service.classify.context import Context
from service.engine.runtimes.base import Runtime
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import WorkerPool, local_pool
from service.images.decoding import ImageDecoder
from service.settings import Settings
from tests.runtimes import PATIENCE_S

if TYPE_CHECKING:
    from service.observability.tracing import Tracing


class Server:
    """Starts the application as a server would and stops it likewise."""

    def __init__(self, app: Service) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._lifespan = app.running()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://server")

    @property
    def context(self) -> Context:
        return self.app.context

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for(self._lifespan.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait_for(self._lifespan.__aexit__(None, None, None))
        self.wait_for(self._in_flight())
        self.wait_for(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(self, work: Awaitable[Any]) -> Any:
        """Do something on the server's loop."""

        async def done() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(PATIENCE_S)

    async def _in_flight(self) -> None:
        """Wait for the requests that are not answered yet."""
        await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.wait_for(self._client.get(path, **arguments))

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self.wait_for(self._client.post(path, **arguments))

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return self.wait_for(self._client.request(method, path, **arguments))

    def begin(self, method: str, path: str, **arguments: Any) -> Future[httpx.Response]:
        """Send a request whose answer need not come now."""
        return asyncio.run_coroutine_threadsafe(self._client.request(method, path, **arguments), self._loop)

    def classify(self, data: bytes, query: str = "", content_type: str = "image/png") -> httpx.Response:
        """Classify one image, sent as the raw body."""
        return self.post(f"/classify{query}", content=data, headers={"content-type": content_type})

    def classify_file(self, data: bytes, query: str = "") -> httpx.Response:
        """Classify one image, sent as the form field `file`."""
        return self.post(f"/classify{query}", files={"file": ("image.png", data)})

    def classify_batch(self, files: list[bytes], query: str = "") -> httpx.Response:
        """Classify several images, named 0.png, 1.png and so on."""
        fields = [("files", (f"{number}.png", data)) for number, data in enumerate(files)]
        return self.post(f"/classify/batch{query}", files=fields)


def as_set(settings: Settings) -> Tuning:
    """The policy of settings that leave nothing to measure."""
    wishes = settings.policy_wishes
    assert wishes.workers is not None
    assert wishes.max_batch is not None
    assert wishes.max_wait_ms is not None
    return Tuning(BatchPolicy(wishes.workers, wishes.max_batch, wishes.max_wait_ms))


def pool(runtime: Runtime, settings: Settings) -> WorkerPool:
    """Workers in threads."""
    decoder = ImageDecoder(runtime.manifest.preprocessing, settings.max_bytes, settings.max_pixels, settings.formats)
    return local_pool(runtime, LocalWorker(runtime, decoder.decode), as_set(settings))


@contextmanager
def serving(
    runtime: Runtime, keys: KeySource | None = None, tracing: Tracing | None = None, **settings: object
) -> Iterator[Server]:
    """A started server, with two workers and batches of up to eight where the settings do not say otherwise."""
    chosen = Settings(**({"workers": 2, "max_batch": 8, "max_wait_ms": 0, "objective_ms": 1e6} | settings))
    with Server(create_app(chosen, pool(runtime, chosen), keys, tracing)) as server:
        yield server
