"""One run of the load generator, from its first request to the result."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

from bench.arrival_timer import ArrivalTimer
from bench.connection_pool import ConnectionPool, Request
from bench.load_result import OK, Floats, Result

Check = Callable[[int, bytes], bool]

MOST_CONNECTIONS = 1024  # of an open loop
_PAUSE_S = 0.05  # of a client whose request failed, lest it spin while a server is down


@dataclass
class Run:
    """What to send where, and what was sent; good for one call of `closed` or `open`.

    The attributes are the arguments of the same names of `bench.load.closed_loop`.
    """

    url: str
    bodies: Sequence[bytes]
    headers: Mapping[str, str]
    seconds: float
    warmup_s: float
    timeout_s: float
    check: Check | None
    check_every: int
    _requests: list[Request] = field(default_factory=list, init=False)
    _started: float = field(default=0.0, init=False)

    def closed(self, clients: int) -> Result:
        """Let each of the clients send its next request once the one before has its answer."""
        return self._measure(self._closed(clients))

    def open(self, arrivals_s: Floats) -> Result:
        """Send a request at each of these times, in seconds from the start, in order."""
        return self._measure(self._open(arrivals_s))

    def _measure(self, load: Coroutine[Any, Any, None]) -> Result:
        collecting = gc.isenabled()
        gc.disable()  # going through all requests made so far would take milliseconds, which would look like latency
        cpu_before_s = time.process_time()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(load)
            return self._result(time.process_time() - cpu_before_s)
        finally:
            if collecting:
                gc.enable()

    async def _closed(self, clients: int) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        active = clients

        def send() -> None:
            nonlocal active
            now = time.monotonic()
            if now < end:
                pool.submit(self._next(now, taken=now))
                return
            active -= 1
            if not active:
                ended.set()

        def finished(request: Request) -> None:
            if request.status:
                send()
            else:
                loop.call_later(_PAUSE_S, send)

        pool = self._pool(clients, finished)
        self._started = time.monotonic()
        end = self._started + self.warmup_s + self.seconds
        for _ in range(clients):
            send()
        await ended.wait()
        await pool.close()

    async def _open(self, arrivals_s: Floats) -> None:
        ended = asyncio.Event()

        def send_due() -> None:
            while len(self._requests) < len(schedule):
                scheduled, now = schedule[len(self._requests)], time.monotonic()
                if scheduled > now:
                    timer.set(scheduled)
                    return
                pool.submit(self._next(scheduled, taken=now))

        def finished(_: Request) -> None:
            if len(self._requests) == len(schedule) and not pool.outstanding:
                ended.set()

        pool = self._pool(MOST_CONNECTIONS, finished)
        timer = ArrivalTimer(asyncio.get_running_loop(), send_due)
        self._started = time.monotonic()
        schedule: list[float] = (self._started + arrivals_s).tolist()
        send_due()
        if schedule:
            await ended.wait()
        timer.close()
        await pool.close()

    def _pool(self, most: int, finished: Callable[[Request], None]) -> ConnectionPool:
        return ConnectionPool(self.url, self.bodies, self.headers, most, self.timeout_s, finished)

    def _next(self, scheduled: float, taken: float) -> Request:
        """The next request, with the body whose turn it is."""
        number = len(self._requests)
        sampled = self.check is not None and number % self.check_every == 0
        request = Request(number % len(self.bodies), scheduled, taken, sampled)
        self._requests.append(request)
        return request

    def _result(self, cpu_s: float) -> Result:
        scheduled = self._column("scheduled")
        zero = self._started + self.warmup_s
        verdicts = [
            self.check(request.body, request.answer)
            for request in self._requests
            if self.check is not None and request.sampled and request.status == OK
        ]
        return Result(
            scheduled_s=scheduled - zero,
            sent_s=self._column("sent") - zero,
            latency_s=self._column("finished") - scheduled,
            status=np.array([request.status for request in self._requests], np.int64),
            retry_after=np.array([request.retry_after for request in self._requests], np.bool_),
            lag_s=self._column("taken") - scheduled,
            seconds=self.seconds,
            cpu_s=cpu_s,
            checked=len(verdicts),
            wrong=verdicts.count(False),
        )

    def _column(self, name: str) -> Floats:
        return np.array([getattr(request, name) for request in self._requests], np.float64)


def poisson_arrivals(rate_per_s: float, seconds: float, seed: int) -> Floats:
    """Times of a Poisson process, in order: the gaps between them are exponential with mean 1 / rate."""
    random = np.random.default_rng(seed)
    # Given how many they are, the arrivals of such a process are independent and uniform.
    return np.sort(random.uniform(0, seconds, random.poisson(rate_per_s * seconds)))
