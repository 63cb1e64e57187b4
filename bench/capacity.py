"""From figures that were measured to ten thousand and a million images a second: the arithmetic of docs/scaling.md.

    python -m bench.capacity [--core-hour 0.04] [--gpu-hour 3]

Nothing is measured here. Each figure of `MEASURED` stands in bench/RECORDS.md; what is derived from it is told as such,
and what a reader has to put in the place of an example is a field of `Example`. Prints the tables of the page.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report import markdown, print_result

MEASURED = {
    "38 layers, HTTP": (2065, "HTTP, 16 clients, images/s                            2065"),
    "50 layers, HTTP": (67, "2065                     1447                       67"),
    "50 layers, one image, ms": (27.97, "one image in process, ms                              0.52"),
    "50 layers, start, s": (
        1.60,
        "start to first answer, s                              0.76                     0.78",
    ),
    "38 layers, loop, ms": (0.231, "| 38 layers, 16 | 2865 | 2130 | **0.75** | 0.88 | 0.085, 0.231 |"),
    "50 layers, loop, ms": (1.268, "| 50 layers, 60% open, 16 | 64.3 | 63.7 | 1.00 | 0.99 | 0.833, 1.268 |"),
    "photograph, decoding, ms": (2.0, "decoding 2.0 to 1.35 ms"),
    "38 layers, series": (286, "286 series"),
    "38 layers, answer, bytes": (4350, "4,350 bytes"),
    "log line, bytes": (486, "486 bytes"),
}
"""What was measured, each with the place in bench/RECORDS.md where it stands."""
TIMES = {
    "fp32": {1.0: 1.019, 0.8: 0.850, 0.6: 0.683, 0.4: 0.469},
    "bf16": {1.0: 0.492, 0.8: 0.414, 0.6: 0.335, 0.4: 0.230},
    "int8": {1.0: 0.268, 0.8: 0.228, 0.6: 0.187, 0.4: 0.133},
}
"""Time of an image of 50 layers by precision and share of the gates open: `bench.skipping`, 1046e7d."""
UNGATED_TIME = 1.012
"""Of the same machine code in fp32 without gates, in that run; in the other precisions, all gates open stand for it."""
GPU_RATES = {"no gates": 22_050 / 0.92, "60% open": 31_451.0, "40% open": 39_885.0}
"""Images/s of 50 layers in batches of 128, **estimated and never run on a GPU**: `bench.gpu --estimate`, 289462b."""
CORES_MEASURED, _OPEN_MEASURED, _S_AN_HOUR, _S_A_DAY, _BITS = 2, 0.6, 3_600, 86_400, 8
RATES = (10_000, 1_000_000)


@dataclass(frozen=True)
class Example:
    """What differs from place to place; put your own in.

    Attributes:
        busy: share of its time that a core, a loop or a GPU is meant to be busy.
        core_hour, gpu_hour: prices, in any currency. Examples, of no vendor.
        machine_cores: of the largest machine.
        replica_cores: of a replica of the service.
        network_gbit_s: of a machine, or of what stands in front.
        prometheus_series: that one Prometheus is meant to hold.
        scrape_s: how often it collects.
        log_mb_s: that a collector of logs takes.
        small_file, photograph: bytes of an uploaded file, for 38 and for 50 layers.
    """

    busy: float = 0.7
    core_hour: float = 0.04
    gpu_hour: float = 3.0
    machine_cores: int = 64
    replica_cores: int = 4
    network_gbit_s: float = 10.0
    prometheus_series: float = 1e6
    scrape_s: float = 15.0
    log_mb_s: float = 100.0
    small_file: int = 3_000
    photograph: int = 50_000


def measured(name: str) -> float:
    """A figure of `MEASURED`."""
    return MEASURED[name][0]


def small_core_ms() -> float:
    """Time of a core for an image of 38 layers over HTTP, as measured."""
    return 1_000 * CORES_MEASURED / measured("38 layers, HTTP")


def core_ms(time: float = TIMES["fp32"][_OPEN_MEASURED]) -> float:
    """Time of a core for an image of 50 layers over HTTP that takes this relative time to run.

    What was measured at 60% open, with the part that is inference scaled by the measured times.
    """
    whole = 1_000 * CORES_MEASURED / measured("50 layers, HTTP")
    inference = measured("50 layers, one image, ms")
    return whole - inference + inference * time / TIMES["fp32"][_OPEN_MEASURED]


def series(blocks: int, gates: int, classes: int) -> int:
    """Series in /metrics of one model that is served alone, a few requests after the start.

    Each block has one, and each gate two more; so has each number of blocks that may run, and each class.
    """
    shipped = int(measured("38 layers, series"))
    return shipped - _varying(18, 15, 10) + _varying(blocks, gates, classes)


def _varying(blocks: int, gates: int, classes: int) -> int:
    return blocks + 2 * gates + 2 * (gates + 1) + 2 * classes


def cores(rate: float, milliseconds: float, example: Example) -> int:
    """How many are needed for so many images a second of so many milliseconds each."""
    return math.ceil(rate * milliseconds / 1_000 / example.busy)


def core_table(example: Example) -> list[list[str]]:
    """What it takes and costs on CPUs, by network, gates and precision."""
    rows = [
        ("38 layers as shipped, fp32", small_core_ms(), "measured"),
        ("50 layers, no gates, fp32", core_ms(UNGATED_TIME), "derived"),
        ("50 layers, 60% open, fp32", core_ms(), "measured"),
        ("50 layers, 40% open, fp32", core_ms(TIMES["fp32"][0.4]), "derived"),
    ]
    for precision in ("bf16", "int8"):
        for share in (1.0, 0.6, 0.4):
            rows.append((f"50 layers, {share:.0%} open, {precision}", core_ms(TIMES[precision][share]), "derived"))
    head = ["network", "ms of a core", "images/s a core", *(f"cores for {rate:,}/s" for rate in RATES)]
    head += ["core-hours a million", "example price a million", "the ms are"]
    table = [head]
    for name, milliseconds, how in rows:
        hours = 1e6 * milliseconds / 1_000 / _S_AN_HOUR / example.busy
        needed = [f"{cores(rate, milliseconds, example):,}" for rate in RATES]
        price = f"{hours * example.core_hour:.3f}"
        table.append([name, f"{milliseconds:.2f}", f"{1_000 / milliseconds:,.0f}", *needed, f"{hours:.2f}", price, how])
    return table


def gpu_table(example: Example) -> list[list[str]]:
    """What it takes and costs on GPUs, and on the CPUs that decode for them; all of it estimated."""
    feeding_ms = measured("photograph, decoding, ms") + measured("50 layers, loop, ms")
    head = ["50 layers", "images/s a GPU", *(f"GPUs for {rate:,}/s" for rate in RATES)]
    head += ["cores that feed one GPU", *(f"cores for {rate:,}/s" for rate in RATES), "example price a million"]
    table = [head]
    for name, rate_a_gpu in GPU_RATES.items():
        gpus = [f"{math.ceil(rate / rate_a_gpu / example.busy):,}" for rate in RATES]
        feeding = [f"{cores(rate, feeding_ms, example):,}" for rate in RATES]
        hours = [1e6 / rate_a_gpu / _S_AN_HOUR / example.busy, 1e6 * feeding_ms / 1_000 / _S_AN_HOUR / example.busy]
        price = hours[0] * example.gpu_hour + hours[1] * example.core_hour
        one = f"{math.ceil(rate_a_gpu * feeding_ms / 1_000):,}"
        table.append([name, f"{rate_a_gpu:,.0f}", *gpus, one, *feeding, f"{price:.3f}"])
    return table


def limit_table(example: Example) -> list[list[str]]:
    """At how many images a second each thing is full, in the order of 50 layers."""
    limits = []
    for served in _served(example):
        per_core = example.busy * 1_000 / served.core_ms
        replicas = example.prometheus_series / served.series
        limits.append(
            {
                "one event loop": example.busy * 1_000 / served.loop_ms,
                f"a machine of {example.machine_cores} cores": per_core * example.machine_cores,
                f"{example.network_gbit_s:g} Gbit/s": 1e9 * example.network_gbit_s / _BITS / served.bytes,
                f"{example.prometheus_series:,.0f} series": replicas * per_core * example.replica_cores,
                f"{example.log_mb_s:g} MB/s of logs": 1e6 * example.log_mb_s / measured("log line, bytes"),
            }
        )
    table = [["what is full", *(f"{served.name}, images/s" for served in _served(example))]]
    for name in sorted(limits[1], key=limits[1].__getitem__):
        table.append([name, *(f"{limit[name]:,.0f}" for limit in limits)])
    return table


def amount_table(example: Example) -> list[list[str]]:
    """How much of each there is."""
    head = ["network", "images/s", "event loops", f"replicas of {example.replica_cores} cores", "Gbit/s", "series"]
    table = [[*head, "samples/s", "access log, TB a day"]]
    for served in _served(example):
        for rate in RATES:
            replicas = math.ceil(cores(rate, served.core_ms, example) / example.replica_cores)
            logged = rate * measured("log line, bytes") * _S_A_DAY / 1e12
            line = [served.name, f"{rate:,}", f"{cores(rate, served.loop_ms, example):,}", f"{replicas:,}"]
            line += [f"{rate * served.bytes * _BITS / 1e9:,.1f}", f"{replicas * served.series:,}"]
            table.append([*line, f"{replicas * served.series / example.scrape_s:,.0f}", f"{logged:,.2f}"])
    return table


@dataclass(frozen=True)
class _Served:
    """A network that is served, in fp32.

    Attributes:
        core_ms, loop_ms: of an image, of all cores and of the event loop.
        bytes: of an image, its file and the answer; the answer with 38 layers stands for both.
        series: of a replica.
    """

    name: str
    core_ms: float
    loop_ms: float
    bytes: float
    series: int


def _served(example: Example) -> tuple[_Served, _Served]:
    answer, loop_ms = measured("38 layers, answer, bytes"), measured("38 layers, loop, ms")
    small = _Served("38 layers", small_core_ms(), loop_ms, example.small_file + answer, series(18, 15, 10))
    loop_ms = measured("50 layers, loop, ms")
    large = "50 layers, 60% open", core_ms(), loop_ms, example.photograph + answer, series(16, 16, 1_000)
    return small, _Served(*large)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="What do many images a second take?")
    parser.add_argument("--core-hour", type=float, default=Example.core_hour, help="price (default: %(default)g)")
    parser.add_argument("--gpu-hour", type=float, default=Example.gpu_hour, help="price (default: %(default)g)")
    arguments = parser.parse_args(argv)
    example = Example(core_hour=arguments.core_hour, gpu_hour=arguments.gpu_hour)
    tables = {each.__name__: each(example) for each in (core_table, gpu_table, limit_table, amount_table)}
    print("\n\n".join(markdown(*each) for each in tables.values()))
    return print_result(True, {"benchmark": "capacity", "example": vars(example), **tables})


if __name__ == "__main__":
    sys.exit(main())
