"""The client for asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from os import PathLike
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from convnet_aig_client.answers import BatchItem, Classification
from convnet_aig_client.attempts import Attempts
from convnet_aig_client.calls import Calls
from convnet_aig_client.connection import connection
from convnet_aig_client.errors import ServiceError
from convnet_aig_client.exchange import Attempt, Exchange, Reply, error_of
from convnet_aig_client.files import FileAnswer, ahead
from convnet_aig_client.images import Image, read_image
from convnet_aig_client.models import ListedModel, ModelDescription
from convnet_aig_client.options import BatchOptions, Options

T = TypeVar("T")


class AsyncClient:
    """Asks one service, as `Client` does. The tasks of one event loop may share it.

    A request that the service refuses for lack of capacity, or whose connection fails, is sent again with growing
    random pauses, never before the service's `Retry-After`. If that is after the deadline, the error comes at once.

    Args:
        url: of the service, with the path below which a proxy shows it.
        api_key: if the service asks for one.
        timeout: seconds for a request with all its attempts, if it has no timeout of its own.
        attempts: the most there are of a request.
        verify: whether to check the certificate of the service, or how to.

    Raises:
        ValueError: the URL or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._calls = Calls(timeout, lambda timeout_s: Attempts(timeout_s, attempts))
        self._http = httpx.AsyncClient(**connection(url, api_key, verify))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def classify(self, image: Image, **options: Unpack[Options]) -> Classification:
        """Classify one image; `Options` says what can be asked for.

        Raises:
            OSError: the image file cannot be read.
            ServiceError: there is no answer.
        """
        return await self._run(self._calls.classify(await asyncio.to_thread(read_image, image), **options))

    async def classify_batch(self, images: Iterable[Image], **options: Unpack[BatchOptions]) -> list[BatchItem]:
        """Classify several images with one request; `BatchOptions` says what can be asked for.

        Returns:
            An answer or an error for each image, in order. Images that only the moment was against are sent again.

        Raises:
            OSError: an image file cannot be read.
            ServiceError: there are no answers at all.
        """
        files = [await asyncio.to_thread(read_image, image) for image in images]
        return await self._run(self._calls.classify_batch(files, **options))

    async def classify_files(
        self, paths: Iterable[str | PathLike[str]], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> AsyncIterator[FileAnswer]:
        """Classify any number of files, each with a request of its own.

        Args:
            paths: taken as they are needed.
            concurrency: the most files that are in memory, and requests in progress.
            options: as `classify` has them; the timeout is that of each file.

        Returns:
            An answer or an error for each file, in the order of the paths.
        """
        tasks: set[asyncio.Task[FileAnswer]] = set()

        def begin(path: str | PathLike[str]) -> asyncio.Task[FileAnswer]:
            task = asyncio.create_task(self._classify_file(path, options))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return task

        try:
            for running in ahead(map(begin, paths), concurrency):
                yield await running
        finally:  # where the caller wants no more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def models(self, *, timeout: float | None = None) -> list[ListedModel]:
        """List every version of every model that is served.

        Raises:
            ServiceError: there is no answer.
        """
        return await self._run(self._calls.models(timeout))

    async def model(
        self, name: str | None = None, version: str | None = None, *, timeout: float | None = None
    ) -> ModelDescription:
        """Describe a model: the default one without a name, the newest version without a version.

        Raises:
            ServiceError: there is no answer, or no such model.
        """
        return await self._run(self._calls.model(name, version, timeout))

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the service can be reached and can be expected to answer images. It is asked once.

        Raises:
            ServiceError: what answers is no such service.
        """
        return await self._run(self._calls.ready(timeout))

    async def _classify_file(self, path: str | PathLike[str], options: Options) -> FileAnswer:
        try:
            return FileAnswer(path=path, answer=await self.classify(path, **options))
        except (OSError, ServiceError) as error:
            return FileAnswer(path=path, error=error)

    async def _run(self, exchange: Exchange[T]) -> T:
        try:
            attempt = next(exchange)
            while True:
                await asyncio.sleep(attempt.pause_s)
                attempt = exchange.send(await self._send(attempt))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, attempt: Attempt) -> Reply | ServiceError:
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await self._http.send(attempt.build(self._http))
        except (httpx.RequestError, TimeoutError) as error:
            return error_of(error)
        return Reply(response.status_code, response.headers, response.content)
