"""Answers as rows of a table: merged, put in order, and their columns named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.models.dashboard import DataTransformerConfig


def merged() -> DataTransformerConfig:
    """The rows of all queries with the same labels as one row."""
    return DataTransformerConfig(id_val="merge", options={})


def as_number(column: str) -> DataTransformerConfig:
    """A label's values as numbers."""
    return DataTransformerConfig(
        id_val="convertFieldType",
        options={"fields": {}, "conversions": [{"targetField": column, "destinationType": "number"}]},
    )


def sorted_by(column: str, *, largest_first: bool = False) -> DataTransformerConfig:
    """The rows in order."""
    return DataTransformerConfig(
        id_val="sortBy", options={"fields": {}, "sort": [{"field": column, "desc": largest_first}]}
    )


def with_columns(names: Mapping[str, str], hidden: Sequence[str]) -> DataTransformerConfig:
    """The columns of `names` in that order under their new names, without the `hidden` ones."""
    return DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {column: index for index, column in enumerate(names)},
            "renameByName": {column: name for column, name in names.items() if column != name},
        },
    )
