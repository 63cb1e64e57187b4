"""Check the load generator: its closed loop against wrk, its open loop against servers of known latency.

    python -m bench.load_check

Takes a minute on an otherwise idle machine; what else runs there disturbs it. The last line on stdout is JSON.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.load import closed_loop, open_loop
from bench.simulated_server import DELAY_S, SERVICE_S, STALL_S, simulated_server

_CLIENTS = (1, 4, 16, 64)
_ROUNDS = 3  # each tool in turn, so that both meet the same disturbances; the medians are compared
_SECONDS = 2
_WARMUP_S = 0.3  # wrk leaves without its last answers, and the server first works those off
_TIMEOUT_S = 10.0
_BODIES = [bytes([value]) * (2000 + 100 * value) for value in range(10)]  # about the sizes of small JPEGs
_HEADERS = {"Content-Type": "image/jpeg"}

# Posts the bodies that lie beside it in turn, and prints what was measured as JSON.
_LUA = """
local requests, turn = {}, 0
for number = 0, %d do
  local file = assert(io.open("%s/" .. number, "rb"))
  requests[number + 1] = wrk.format("POST", nil, {["Content-Type"] = "%s"}, file:read("*a"))
  file:close()
end
function request()
  turn = turn %% #requests + 1
  return requests[turn]
end
function done(summary, latency)
  io.write(string.format('{"requests": %%d, "us": %%d, "p50_us": %%f, "p99_us": %%f}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Finding:
    """One figure and what it should be."""

    what: str
    measured: float
    expected: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return abs(self.measured - self.expected) <= self.tolerance


@dataclass(frozen=True)
class _Speed:
    """What a tool saw of a closed loop, and what the tool itself cost."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def main() -> int:
    """Run all checks; return 0 if everything is as expected, 1 if not, 2 if wrk is missing."""
    if shutil.which("wrk") is None:
        print("error: wrk is missing; install it with: apt-get install wrk", file=sys.stderr)
        return 2
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder, simulated_server() as server:
        script = _write_script(Path(folder))
        closed_loop(f"{server}/burn", _BODIES, _HEADERS, 1, 0.5, 0.0, _TIMEOUT_S)  # until the server is up and warm
        print(f"{'clients':>7}  {'':4}  {'requests/s':>10}  {'p50 ms':>8}  {'p99 ms':>8}  {'µs of CPU/request':>17}")
        for clients in _CLIENTS:
            findings += _compare(f"{server}/burn", script, clients)
        for check in (_fixed_delay, _queue, _stall):
            findings += check(server)
    print(f"\n{'':34}  {'measured':>10}  {'expected':>10}")
    for finding in findings:
        expected = f"{finding.expected:10.2f} ± {finding.tolerance:.2f}"
        print(f"{finding.what:34}  {finding.measured:10.2f}  {expected}{'' if finding.ok else '   NOT AS EXPECTED'}")
    ok = all(finding.ok for finding in findings)
    print(json.dumps({"ok": ok, "findings": [asdict(finding) | {"ok": finding.ok} for finding in findings]}))
    return 0 if ok else 1


def _compare(url: str, script: Path, clients: int) -> list[Finding]:
    """Throughput and median latency of the closed loop against those of wrk."""
    rounds = [(_wrk(url, script, clients), _ours(url, clients)) for _ in range(_ROUNDS)]
    wrk, ours = (_median([pair[tool] for pair in rounds]) for tool in (0, 1))
    for name, speed in (("wrk", wrk), ("ours", ours)):
        cells = f"{speed.per_s:10.1f}  {speed.p50_ms:8.2f}  {speed.p99_ms:8.2f}  {speed.cpu_us:17.0f}"
        print(f"{clients:7d}  {name:4}  {cells}")
    return [
        Finding(f"requests/s to wrk's, {clients} clients", ours.per_s / wrk.per_s, 1.0, 0.1),
        Finding(f"p50 to wrk's, {clients} clients", ours.p50_ms / wrk.p50_ms, 1.0, 0.1),
    ]


def _wrk(url: str, script: Path, clients: int) -> _Speed:
    before_s = _cpu_of_children_s()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{_SECONDS}s", f"--timeout={_TIMEOUT_S:.0f}s", "-s", str(script), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    told = json.loads(printed.splitlines()[-1])
    cpu_us = 1e6 * (_cpu_of_children_s() - before_s) / told["requests"]
    return _Speed(told["requests"] / told["us"] * 1e6, told["p50_us"] / 1000, told["p99_us"] / 1000, cpu_us)


def _ours(url: str, clients: int) -> _Speed:
    result = closed_loop(url, _BODIES, _HEADERS, clients, _SECONDS, _WARMUP_S, _TIMEOUT_S)
    latency_ms = result.percentiles_ms()
    p50_ms, p99_ms = latency_ms["p50"] or np.nan, latency_ms["p99"] or np.nan
    return _Speed(result.images_per_s, p50_ms, p99_ms, result.cpu_us_per_request)


def _fixed_delay(server: str) -> Iterator[Finding]:
    """Where requests do not disturb each other, latency is the delay; and arrivals are random at the rate asked for."""
    rate = 400.0
    result = open_loop(f"{server}/delay", _BODIES, _HEADERS, rate, 5.0, 0.5, _TIMEOUT_S, seed=1)
    yield Finding("p50 with a fixed delay, ms", _percentile_ms(result.latency_s, 50), 1000 * DELAY_S, 1.5)
    sent_s = np.sort(result.sent_s[result.measured])
    gaps_s = np.diff(sent_s)
    yield Finding("p50 of the generator's lateness, ms", result.lag_ms["p50"] or 0.0, 0.0, 0.5)
    yield Finding("p99 of the generator's lateness, ms", result.lag_ms["p99"] or 0.0, 0.0, 5.0)
    yield Finding("arrivals per s", 1 / float(gaps_s.mean()), rate, 0.03 * rate)
    # The standard deviation of exponential gaps is their mean; of regular ones, 0.
    yield Finding("deviation of the gaps to their mean", float(gaps_s.std() / gaps_s.mean()), 1.0, 0.05)
    # Kolmogorov and Smirnov: the largest distance of the distributions, beyond 1.63 / sqrt(n) once in a hundred times.
    expected = 1 - np.exp(-np.sort(gaps_s) * rate)
    distance = float(np.abs(expected - np.arange(1, len(gaps_s) + 1) / len(gaps_s)).max())
    yield Finding("distance from exponential gaps", distance, 0.0, 1.63 / len(gaps_s) ** 0.5)
    yield Finding("requests that failed", float((result.status != 200).sum()), 0.0, 0.0)


def _queue(server: str) -> Iterator[Finding]:
    """Latencies of a queue with one server follow from the arrivals; first with room to spare, then overloaded."""
    for load in (0.7, 1.5):
        result = open_loop(f"{server}/queue", _BODIES, _HEADERS, load / SERVICE_S, 3.0, 0.0, _TIMEOUT_S, seed=2)
        expected_s, free_at = np.empty(len(result.scheduled_s)), -np.inf
        for number, arrived in enumerate(result.scheduled_s):
            free_at = max(free_at, arrived) + SERVICE_S
            expected_s[number] = free_at - arrived
        # A few ms of disturbance put off everyone behind, which the tail shows most.
        for percent, tolerance_ms in ((50, 2.0), (99, 1000 * SERVICE_S)):
            expected_ms = _percentile_ms(expected_s, percent)
            measured_ms = _percentile_ms(result.latency_s, percent)
            what = f"p{percent} of a queue at {load:.0%} load, ms"
            yield Finding(what, measured_ms, expected_ms, tolerance_ms + 0.05 * expected_ms)


def _stall(server: str) -> Iterator[Finding]:
    """Whoever arrives while the server stalls waits until it goes on, however many there are."""
    urllib.request.urlopen(f"{server}/stall", data=b"", timeout=_TIMEOUT_S).close()
    result = open_loop(f"{server}/at_once", _BODIES, _HEADERS, 200.0, 2.0, 0.0, _TIMEOUT_S, seed=3)
    longest = int(result.latency_s.argmax())
    yield Finding("longest wait for a stalled server, s", float(result.latency_s[longest]), STALL_S, 0.1)
    since_stall_s = result.scheduled_s - result.scheduled_s[longest]
    waiting = int(((since_stall_s >= 0) & (since_stall_s < STALL_S / 2)).sum())
    long_waits = int((result.latency_s > STALL_S / 2).sum())
    yield Finding("requests that wait half of that", long_waits, waiting, 0.2 * waiting)


def _write_script(folder: Path) -> Path:
    for number, body in enumerate(_BODIES):
        (folder / str(number)).write_bytes(body)
    script = folder / "post.lua"
    script.write_text(_LUA % (len(_BODIES) - 1, folder, _HEADERS["Content-Type"]))
    return script


def _median(speeds: list[_Speed]) -> _Speed:
    columns = zip(*(asdict(speed).values() for speed in speeds), strict=True)
    return _Speed(*(float(np.median(column)) for column in columns))


def _percentile_ms(latency_s: np.ndarray, percent: float) -> float:
    return 1000 * float(np.percentile(latency_s, percent))


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
