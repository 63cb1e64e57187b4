"""What a service tells Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def told(text: str) -> Samples:
    """Samples by name and labels, of a service with one model, whose name and version are left out."""
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {(each.name, frozenset(each.labels.items() - _of_model(each.labels))): each.value for each in samples}


def _of_model(labels: dict[str, str]) -> set[tuple[str, str]]:
    return {(name, value) for name, value in labels.items() if name in {"model", "version"}}
