"""The rows of one part: what came of its images, kept as columns until there are all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from artifact.manifest import Manifest
from service.dataset.items import Unreadable
from service.engine.job import Answer, Outcome
from service.errors import classify_error

# Answers are turned into numbers in columns so many at a time: as Python's they take far more memory.
_SETTLED_TOGETHER = 64


@dataclass(frozen=True)
class Columns:
    """Which columns there are, for a model.

    Attributes:
        manifest: of the model.
        top_k: how many predictions are told.
        metadata: of the schema.
    """

    manifest: Manifest
    top_k: int
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """Of every part."""
        return pa.schema(
            [
                ("source", pa.string()),
                ("row", pa.int64()),
                ("name", pa.string()),
                ("label", pa.string()),
                ("probability", pa.float32()),
                ("top_labels", pa.list_(pa.string())),
                ("top_probabilities", pa.list_(pa.float32())),
                ("path", pa.string()),
                ("macs", pa.int64()),
                ("margins", pa.list_(pa.float32())),
                ("error", pa.struct([("type", pa.string()), ("message", pa.string())])),
            ],
            self.metadata,
        )


class Rows:
    """Up to so many rows, in which images are noted in any order.

    Args:
        columns: that there are.
        most: rows.

    Attributes:
        noted: how many images have been.
        errors: how many of them failed, by the type of the error.
        macs: multiply-accumulates of the others together.
    """

    def __init__(self, columns: Columns, most: int) -> None:
        manifest = columns.manifest
        self._columns = columns
        self._best = min(columns.top_k, len(manifest.labels))
        self._names: list[str] = [""] * most
        self._errors: dict[int, dict[str, str]] = {}
        self._order: list[int] = []
        self._waiting: list[tuple[int, Answer]] = []
        self._classes = np.zeros((most, self._best), np.int32)
        self._probabilities = np.zeros((most, self._best), np.float32)
        self._executed = np.zeros((most, len(manifest.blocks)), np.bool_)
        self._margins = np.zeros((most, len(manifest.gated_indices)), np.float32)
        self._macs = np.zeros(most, np.int64)
        self.errors: Counter[str] = Counter()
        self.macs = 0

    @property
    def noted(self) -> int:
        return len(self._order)

    def note(self, row: int, name: str, outcome: Outcome) -> None:
        """Note what came of an image."""
        self._names[row] = name
        self._order.append(row)
        if isinstance(outcome, Answer):
            self.macs += outcome.macs
            self._waiting.append((row, outcome))
            if len(self._waiting) == _SETTLED_TOGETHER:
                self._settle()
            return
        type_, message = _told(outcome)
        self._errors[row] = {"type": type_, "message": message}
        self.errors[type_] += 1

    def table(self, source: str, first: int, as_completed: bool) -> pa.Table:
        """All of them.

        Args:
            source: of the images.
            first: number of the first of them in the source.
            as_completed: whether rows are in the order in which they were noted, and not in that of the source.
        """
        self._settle()
        count, labels = self.noted, pa.array(self._columns.manifest.labels, pa.string())
        failed = np.zeros(count, np.bool_)
        failed[list(self._errors)] = True
        told = np.flatnonzero(~failed)
        classes, executed = self._classes[:count], self._executed[:count]
        gating = self._columns.manifest.gating
        paths = (executed + np.uint8(ord("0"))).astype(np.uint8).view(f"S{executed.shape[1]}").ravel()
        table = pa.Table.from_arrays(
            [
                pa.repeat(pa.scalar(_readable(source), pa.string()), count),
                pa.array(np.arange(first, first + count)),
                pa.array([_readable(name) for name in self._names[:count]], pa.string()),
                labels.take(pa.array(classes[:, 0], mask=failed)),
                pa.array(self._probabilities[:count, 0], mask=failed),
                _lists(labels.take(pa.array(classes[told].ravel())), self._best, failed),
                _lists(pa.array(self._probabilities[told].ravel()), self._best, failed),
                pa.array(paths, pa.binary(), mask=failed).cast(pa.string()),
                pa.array(self._macs[:count], mask=failed),
                # Of a gate that was not reached there is no margin.
                _lists(
                    pa.array(self._margins[told].ravel(), mask=~gating.reached(executed[told]).ravel()),
                    self._margins.shape[1],
                    failed,
                ),
                pa.array([self._errors.get(row) for row in range(count)], self._columns.schema.field("error").type),
            ],
            schema=self._columns.schema,
        )
        return table.take(pa.array(self._order, pa.int64())) if as_completed else table

    def _settle(self) -> None:
        """Turn the answers that wait into numbers in columns."""
        if not self._waiting:
            return
        rows = [row for row, _ in self._waiting]
        answers = [answer for _, answer in self._waiting]
        self._waiting = []
        logits = np.array([answer.logits for answer in answers])
        best = np.argsort(-logits, axis=1, kind="stable")[:, : self._best]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        self._classes[rows] = best
        self._probabilities[rows] = np.take_along_axis(probabilities, best, axis=1)
        self._executed[rows] = [answer.executed for answer in answers]
        self._margins[rows] = [answer.margins for answer in answers]
        self._macs[rows] = [answer.macs for answer in answers]


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, Unreadable):
        return error.type, _readable(str(error))
    detail = classify_error(error)[1]
    return detail.type, _readable(detail.message)


def _readable(text: str) -> str:
    """A name without what is no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _lists(values: pa.Array, each: int, absent: np.ndarray) -> pa.ListArray:
    """Lists of so many values each, or none where that is absent."""
    offsets = np.concatenate([[0], np.cumsum(~absent)]).astype(np.int32) * np.int32(each)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(absent))
