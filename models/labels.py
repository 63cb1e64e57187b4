"""Names of classes, read from a file."""

from __future__ import annotations

import json
from pathlib import Path

from models.examples import DataError


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in the order of the logits.

    They are a JSON list, a JSON object from index to name, or text with one name a line.

    Raises:
        DataError: it is none of these, or not every index has a name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels in {path}: {error}") from error
    try:
        told = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except json.JSONDecodeError as error:
        raise DataError(f"the labels in {path} are no JSON: {error}") from error
    if isinstance(told, dict):
        if told.keys() != {str(index) for index in range(len(told))}:
            raise DataError(f"the labels in {path} are not numbered from 0 to {len(told) - 1}")
        told = [told[str(index)] for index in range(len(told))]
    if not isinstance(told, list) or not all(isinstance(name, str) and name.strip() for name in told):
        raise DataError(f"the labels in {path} are neither a list of names nor an object from index to name")
    return tuple(name.strip() for name in told)
