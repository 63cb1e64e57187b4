"""The documented table of errors, compared with the code in both directions."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from docs.hooks.tables import error_types
from service import errors
from service.http.front_door import REFUSAL
from tests.e2e.process import ROOT

# Made in `classify_error` from what FastAPI and Starlette raise.
_OF_THE_FRAMEWORK = {("unknown_parameter", 422), ("invalid_parameter", 422), ("internal_error", 500)}


def _told() -> list[tuple[str, int]]:
    return [(type_, error["status"]) for type_, error in error_types().items()]


def _raised_by_the_web_side() -> Iterator[tuple[str, int]]:
    """The status and type of every `ApiError(status, type, message)`."""
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "id", None) == "ApiError":
                status, type_ = (ast.literal_eval(argument) for argument in node.args[:2])
                yield type_, status


def _known() -> set[tuple[str, int]]:
    known = {(type_, status) for status, type_ in errors.KNOWN.values()}
    of_http = {(type_, status) for status, type_ in errors.OF_HTTP.items()}
    of_http.add((REFUSAL, 503))
    return known | of_http | set(_raised_by_the_web_side()) | _OF_THE_FRAMEWORK


def test_table_tells_every_error_there_is_and_no_other() -> None:
    assert set(_told()) == _known()


def test_table_tells_of_every_error_when_it_comes_and_what_to_do() -> None:
    assert all(error["when"].endswith(".") and error["do"].endswith(".") for error in error_types().values())


def test_table_is_in_the_order_of_the_statuses() -> None:
    statuses = [status for _, status in _told()]
    assert statuses == sorted(statuses)


def test_error_types_made_from_the_framework_exist() -> None:
    source = (ROOT / "service" / "errors.py").read_text(encoding="utf-8")
    assert all(f'"{type_}"' in source for type_, _ in _OF_THE_FRAMEWORK)
