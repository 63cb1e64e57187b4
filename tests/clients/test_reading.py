"""Answers as dataclasses: all that is documented, and nothing lost to what a newer service adds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from convnet_aig_client import answers, models
from convnet_aig_client.answers import Classification
from convnet_aig_client.reading import read_json
from docs.hooks.http_reference import document
from tests.clients.answered import classification

KINDS = [kind for module in (answers, models) for kind in vars(module).values() if dataclasses.is_dataclass(kind)]


def read(told: Any) -> Classification:
    return read_json(Classification, json.dumps(told).encode())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_documented_field_is_there(kind: type[Any]) -> None:
    documented = document()["components"]["schemas"][kind.__name__]["properties"]
    assert {field.name for field in dataclasses.fields(kind)} == documented.keys()


def test_fields_that_are_not_known_are_ignored() -> None:
    told = classification()
    told["predictions"][0]["colour"] = told["mood"] = {"is": ["new"]}
    assert read(told) == read(classification())


def test_optional_field_may_be_missing() -> None:
    told = classification()
    del told["layers"]
    assert read(told).layers is None


def test_whole_number_is_a_number() -> None:
    told = classification()
    told["timing_ms"]["total"] = 3
    assert read(told).timing_ms.total == 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [("predictions", None), ("predictions", [1]), ("compute", []), ("model", {"name": 1, "version": "1"})],
)
def test_value_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        read(classification() | {name: value})


def test_truth_is_no_number() -> None:
    told = classification()
    told["compute"]["macs"] = True
    with pytest.raises(ValueError, match=r"compute\.macs is bool, not int"):
        read(told)


def test_missing_field_is_refused() -> None:
    told = classification()
    del told["compute"]["ratio"]
    with pytest.raises(ValueError, match="ratio"):
        read(told)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b"null"])
def test_what_is_no_such_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each has words of its own)
        read_json(Classification, text)
