from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from service.images.decoding import ImageDecoder, TooManyPixels
from service.observability.logs import JsonFormatter, TextFormatter, logged
from service.observability.record import RequestRecord, current_record
from service.settings import LogFormat
from tests.image_files import encoded, hollow_png, photograph
from tests.runtimes import echo_manifest

HOSTILE = [
    "end\nINFO:     forged",
    'end\n{"level": "info", "message": "forged"}',
    "end\r\nINFO:     forged",
    "end\x0bINFO:     forged",
    "end\x85INFO:     forged",
    "end\u2028INFO:     forged",
    "\x1b[2K\x1b[1AINFO:     forged",
    "\x9b2KINFO:     forged",
    "\0\b\x7f",
]


def _record(message: str = "told", error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    logger = logging.getLogger("some.logger")
    return logger.makeRecord(logger.name, logging.WARNING, "file", 1, message, (), exc_info, extra=extra)


def _json(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def _text(record: logging.LogRecord) -> str:
    return TextFormatter("%(levelprefix)s %(message)s", use_colors=False).format(record)


@pytest.fixture
def error() -> Exception:
    try:
        raise ValueError("what was wrong")
    except ValueError as raised:
        return raised


def test_json_line_tells_when_how_bad_who_and_what() -> None:
    line = _json(_record())
    written = datetime.fromisoformat(line.pop("timestamp"))
    assert written.tzinfo == UTC
    assert abs((datetime.now(UTC) - written).total_seconds()) < 30
    assert line == {"level": "warning", "logger": "some.logger", "message": "told"}
    assert JsonFormatter().format(_record())[:40].count("Z") == 1


def test_exception_is_a_field_of_its_line(error: Exception) -> None:
    line = _json(_record(error=error))
    assert line["message"] == "told"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: what was wrong")


@pytest.mark.parametrize("value", ["\udcff", Path("a"), {1, 2}, object()])
def test_line_is_written_whatever_is_in_it(value: object) -> None:
    line = _json(_record(f"told {value}", fields={"thing": value}))
    assert line["message"].startswith("told")
    assert line["level"] == "warning"
    assert "thing" in line


def test_fields_are_fields_of_the_json_object_and_follow_the_text() -> None:
    record = _record(fields={"status": 200, "outcome": "ok", "nothing": None, "each": {"ok": 2}})
    line = _json(record)
    assert (line["status"], line["outcome"], line["each"]) == (200, "ok", {"ok": 2})
    assert "nothing" not in line
    assert _text(record) == 'WARNING:  told status=200 outcome=ok each={"ok":2}'


def test_line_written_in_the_course_of_a_request_has_its_id() -> None:
    def write() -> tuple[dict[str, Any], str]:
        current_record.set(RequestRecord("id-1", 0.0, trace_id="abc", span_id="def"))
        return _json(_record()), _text(_record())

    line, text = copy_context().run(write)
    assert (line["request_id"], line["trace_id"], line["span_id"]) == ("id-1", "abc", "def")
    assert text == "WARNING:  told request_id=id-1 trace_id=abc span_id=def"
    assert "request_id" not in _json(_record())


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("where", ["message", "field", "exception"])
def test_what_was_sent_cannot_forge_a_line(hostile: str, where: str) -> None:
    record = {
        "message": lambda: _record(hostile),
        "field": lambda: _record(fields={"sent": hostile}),
        "exception": lambda: _record(error=ValueError(hostile)),
    }[where]()
    lines = _text(record).splitlines()
    assert lines[0].startswith("WARNING:  ")
    assert all(line.startswith("  ") for line in lines[1:])
    assert where == "exception" or len(lines) == 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for line in lines for char in line)
    told = _json(record)  # one object on one line, in which what was sent is only a string's content
    assert hostile in (told["message"], told.get("sent")) or told["exception"].endswith(hostile)
    assert (told["level"], told["logger"]) == ("warning", "some.logger")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_everything_the_process_says_is_in_the_format(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(log_format, "debug"), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.getLogger("uvicorn.error").info("started\n")
        logging.getLogger("service.engine").debug("detail")
        logging.getLogger("library").warning("beware")
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: 1 / 0, name="worker")
        thread.start()
        thread.join()
        sys.excepthook(KeyError, KeyError("top"), None)
    lines = capsys.readouterr().err.splitlines()
    if log_format == "text":
        told = [line.split(maxsplit=1) for line in lines if not line.startswith("  ")]
    else:
        told = [[f"{line['level'].upper()}:", line["message"]] for line in map(json.loads, lines)]
    levels, messages = zip(*told, strict=True)
    assert levels == ("INFO:", "DEBUG:", "WARNING:", "WARNING:", "CRITICAL:", "CRITICAL:")
    assert messages[:3] == ("started", "detail", "beware")
    assert "DeprecationWarning: old way" in messages[3]
    assert messages[4:] == ("uncaught exception in thread worker", "uncaught exception")


def test_libraries_may_not_log_what_stands_in_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    decoder = ImageDecoder(echo_manifest().preprocessing, max_bytes=10**6, max_pixels=10**6)
    with logged("text", "debug"):
        for kind in ("PNG", "TIFF"):
            decoder.decode(encoded(photograph(30, 20), kind))
    assert capsys.readouterr().err == ""


def test_what_is_damaged_in_an_image_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    tiff = encoded(photograph(30, 20), "TIFF", tiffinfo={ExifTags.Base.ImageDescription: "twelve bytes"})
    damaged = tiff.replace(b"\x0e\x01\x02\0\x0d\0\0\0", b"\x0e\x01\x02\0\0\0\x10\0")  # of a megabyte
    bomb = hollow_png(12_000, 12_000)
    for image in (damaged, bomb):
        with pytest.raises(Warning):
            Image.open(io.BytesIO(image)).load()
    decoder = ImageDecoder(echo_manifest().preprocessing, max_bytes=10**6, max_pixels=10**6)
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as it is outside of tests
        with logged("text", "debug"):
            decoder.decode(damaged)
            with pytest.raises(TooManyPixels):
                decoder.decode(bomb)
            assert capsys.readouterr().err == ""
            warnings.warn("of another", stacklevel=1)
    assert "UserWarning: of another" in capsys.readouterr().err


def test_least_severe_line_is_as_set(capsys: pytest.CaptureFixture[str]) -> None:
    with logged("text", "error"):
        logging.getLogger("uvicorn.error").warning("beware")
        logging.getLogger("service").error("wrong")
    assert capsys.readouterr().err == "ERROR:    wrong\n"


def test_log_is_left_as_it_was_found() -> None:
    def state() -> list[Any]:
        loggers = [logging.getLogger(name) for name in ("", "service", "uvicorn")]
        levels = [logger.level for logger in loggers]
        return [
            list(loggers[0].handlers),
            levels,
            sys.excepthook,
            threading.excepthook,
            warnings.showwarning,
            [*warnings.filters],
        ]

    before = state()
    with pytest.raises(KeyError), logged("json", "debug"):
        raise KeyError
    assert state() == before
