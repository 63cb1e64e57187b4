"""The panels of GPUs: how busy, full and hot they are, and what power they draw."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries

from docker.grafana import style
from docker.grafana.panels import Caption, Series, curves
from docker.grafana.promql import or_none

_WIDTH = 6


def devices() -> list[timeseries.Panel]:
    """One for each quantity, with a line for each GPU."""
    utilisation = Caption(
        "GPU utilisation",
        "Share of the time in which a GPU ran anything. Near 100% more images may still fit: batches grow with the "
        "load. Low while requests are refused: decoding on the CPU is the limit.",
        "percentunit",
        high=1,
    )
    memory = Caption(
        "GPU memory",
        "Share of the memory that is taken, by the service or anything else. Where it runs out, batches get smaller, "
        "and a model may not load: end other programs, or serve fewer models.",
        "percentunit",
        high=1,
    )
    temperature = Caption(
        "GPU temperature",
        "A GPU that gets too hot slows itself down, most from 85 °C or so: see to its fans and to the air it gets.",
        "celsius",
    )
    power = Caption(
        "GPU power",
        "Power drawn. Dashed: the lowest limit of any GPU. At its limit a GPU runs slower than it could.",
        "watt",
    )
    limit = Series("min(aig_device_power_limit_watts)", "limit", style.BAD, is_dashed=True)
    return [
        curves(utilisation, [_of_each("aig_device_utilisation_ratio")], width=_WIDTH),
        curves(memory, [_of_each("aig_device_memory_used_bytes / aig_device_memory_total_bytes")], width=_WIDTH),
        curves(temperature, [_of_each("aig_device_temperature_celsius")], width=_WIDTH),
        curves(power, [_of_each("aig_device_power_watts"), limit], width=_WIDTH),
    ]


def _of_each(expr: str) -> Series:
    return Series(or_none(expr, "device", "no GPU"), "{{device}} {{instance}}")
