"""The metrics of all front ends, asked from each when somebody wants them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.frontends.front_end import FrontEnd
from service.frontends.shared import Shared
from service.frontends.sums import Sums, Told, told_by
from service.frontends.talk import NoAnswer
from service.observability.process_metrics import ProcessMetrics

# How long a front end has to tell its counts, before those count that it told last.
_ANSWER_S = 2.0
# Longest wait for all of them where another thread asks.
_THREAD_S = 5.0
# The number of this process among those whose counts are added up; front ends count from 0.
_OWN = -1


class Counts:
    """It lives on an event loop.

    Args:
        serving: tells the front ends that can be asked.

    Attributes:
        text: all metrics in Prometheus's text format, written once for all who ask meanwhile.
    """

    def __init__(self, serving: Callable[[], Sequence[FrontEnd]]) -> None:
        self._serving = serving
        self._sums = Sums()
        self._own = CollectorRegistry()
        self._own.register(ProcessMetrics(lambda: {"parent": os.getpid()}))
        self._all = CollectorRegistry()
        self._all.register(_Asked(self._sums.collect))
        self.text = Shared(self._text)
        self._collected = Shared(self._collect)

    def take(self, front_end: FrontEnd, told: Told) -> None:
        """Take what a front end has counted."""
        if not front_end.over:
            self._sums.take(front_end.number, told)

    def retire(self, front_end: FrontEnd) -> None:
        """Keep what a front end had counted that has ended, as far as it has told."""
        self._sums.retire(front_end.number)

    async def ask(self, front_end: FrontEnd) -> None:
        """Ask one; where it does not answer, its counts stay what they were."""
        with suppress(NoAnswer):
            self.take(front_end, await front_end.talk.ask("counts", within_s=_ANSWER_S))

    async def _refresh(self) -> None:
        """Ask all."""
        await asyncio.gather(*map(self.ask, self._serving()))
        self._sums.take(_OWN, told_by(self._own))

    async def _text(self) -> str:
        await self._refresh()
        return generate_latest(self._all).decode()

    async def _collect(self) -> list[Metric]:
        await self._refresh()
        return [*self._all.collect()]

    def registry_for_threads(self, loop: asyncio.AbstractEventLoop) -> CollectorRegistry:
        """The same for who asks from other threads than that of this event loop."""

        def collect() -> Iterator[Metric]:
            yield from asyncio.run_coroutine_threadsafe(self._collected(), loop).result(_THREAD_S)

        registry = CollectorRegistry()
        registry.register(_Asked(collect))
        return registry


class _Asked(Collector):
    """What a function collects. It is not asked before somebody wants to know."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        return self._collect()
