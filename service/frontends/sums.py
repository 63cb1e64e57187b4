"""The metrics of all front ends as those of one service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

Told = list[list[Any]]
"""Of a registry: name, documentation and type of each family, and its samples: name, labels and value."""

_Labels = tuple[tuple[str, str], ...]
_Values = dict[tuple[str, _Labels], float]

GAUGES: dict[str, Callable[[Iterable[float]], float]] = {
    "aig_ready": min,
    "aig_model_ready": min,
    "aig_model_info": max,
    "aig_queue_depth": sum,
    "aig_queue_capacity": sum,
    "aig_budget_limit": min,
    "aig_objective_seconds": max,
    "aig_block_expected_execution_rate": max,
    "aig_expected_macs": max,
    "aig_resident_memory_bytes": sum,
    "aig_device_readable": max,
    "aig_device_info": max,
    "aig_device_utilisation_ratio": max,
    "aig_device_memory_used_bytes": max,
    "aig_device_memory_total_bytes": max,
    "aig_device_temperature_celsius": max,
    "aig_device_power_watts": max,
    "aig_device_power_limit_watts": max,
}
"""What the gauges of several front ends are together; all other metrics are counts, which are summed."""


def told_by(registry: CollectorRegistry) -> Told:
    """What a registry tells now, as JSON can say it."""
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[each.name, each.labels, each.value] for each in family.samples],
        ]
        for family in registry.collect()
    ]


class Sums:
    """Adds up what front ends tell. What one has counted that has ended stays counted, as far as it has told."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}
        self._kept: dict[str, tuple[Metric, _Values]] = {}

    def take(self, number: int, told: Told) -> None:
        """Take what a front end tells in the place of what it has told so far."""
        self._told[number] = told

    def retire(self, number: int) -> None:
        """Keep the counts of a front end that has ended, and nothing else of it."""
        _add(self._kept, (family for family in self._told.pop(number, []) if family[2] != "gauge"))

    def collect(self) -> Iterator[Metric]:
        """The metrics of all; models that nobody serves any more are left out."""
        families: dict[str, tuple[Metric, _Values]] = {}
        for told in self._told.values():
            _add(families, told)
        served = {model for _, values in families.values() for _, labels in values if (model := _model(labels))}
        if served:
            for _, values in self._kept.values():
                for key in [key for key in values if (model := _model(key[1])) and model not in served]:
                    del values[key]
        _add(families, (_plain(*kept) for kept in self._kept.values()))
        for family, values in families.values():
            for (name, labels), value in values.items():
                family.add_sample(name, dict(labels), value)
            yield family


def _add(families: dict[str, tuple[Metric, _Values]], told: Iterable[list[Any]]) -> None:
    for name, documentation, kind, samples in told:
        _, values = families.setdefault(name, (Metric(name, documentation, kind), {}))
        together = GAUGES[name] if kind == "gauge" else sum
        for sample, labels, value in samples:
            key = sample, tuple(labels.items())
            values[key] = together((values[key], value)) if key in values else value


def _plain(family: Metric, values: _Values) -> list[Any]:
    samples = [[name, dict(labels), value] for (name, labels), value in values.items()]
    return [family.name, family.documentation, family.type, samples]


def _model(labels: _Labels) -> tuple[str, str] | None:
    """The model that a sample is of, where it is of one version."""
    named = dict(labels)
    return (named["model"], named["version"]) if "version" in named and "model" in named else None
