from __future__ import annotations

import logging
import os

import pytest

from service.engine.child_process import log_printed
from tests.service.clock import Clock


def _logged(printed: bytes, caplog: pytest.LogCaptureFixture, clock: Clock | None = None) -> list[str]:
    caplog.clear()
    source, sink = os.pipe()
    thread = log_printed(source, "a worker", clock or Clock())
    with os.fdopen(sink, "wb") as pipe:
        pipe.write(printed)
    thread.join()
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_each_line_that_is_printed_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert _logged(b"one\n\ntwo \xff\nthree", caplog) == [
        "a worker printed: one",
        "a worker printed: two \\xff",
        "a worker printed: three",
    ]


def test_line_without_an_end_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = _logged(b"x" * 10_000_000, caplog)
    assert line == "a worker printed: " + "x" * 500 + "…"


def test_of_many_lines_a_few_are_logged_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    lines = _logged(b"libtiff: error\n" * 1_000_000, caplog)
    assert len(lines) == 21
    assert lines[-1] == "a worker printed 999980 lines more"


def test_nothing_printed_is_nothing_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert _logged(b"", caplog) == []
