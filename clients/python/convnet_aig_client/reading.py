"""From JSON to dataclasses, by their type annotations."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def read_json(kind: type[T], text: bytes) -> T:
    """What a JSON document says. Unknown fields are ignored.

    Args:
        kind: a dataclass whose fields are dataclasses, lists, optional values, strings, numbers and booleans.

    Raises:
        ValueError: it is not JSON, lacks a field, or has a value of another type.
    """
    try:
        read: T = _read(kind, json.loads(text), kind.__name__)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    return read


def _read(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        return _read_object(kind, value, name)
    if get_origin(kind) is list:
        (of_each,) = get_args(kind)
        return [_read(of_each, each, name) for each in _checked(list, value, name)]
    if isinstance(kind, UnionType):
        (some, _) = get_args(kind)  # X | None
        return None if value is None else _read(some, value, name)
    if kind is float and type(value) is int:
        return float(value)
    return _checked(kind, value, name)


def _read_object(kind: Any, value: Any, name: str) -> Any:
    told, types = _checked(dict, value, name), _types(kind)
    read = {field: _read(types[field], told[field], f"{name}.{field}") for field in types.keys() & told.keys()}
    try:
        return kind(**read)
    except TypeError as error:  # only a field without a default value can be the reason
        raise ValueError(f"{name} lacks a field: {error}") from error


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _checked(kind: Any, value: Any, name: str) -> Any:
    if type(value) is not kind:  # a bool is no int here
        raise ValueError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value
