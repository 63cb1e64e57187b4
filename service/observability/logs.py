"""What the process logs: text for people, or one JSON object a line for programs.

The formatter is this project's own because all it does is put a record into a dict. python-json-logger would need a
subclass about as long for the id of the request, uvicorn's coloured duplicates and text that is no UTF-8.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson
from uvicorn.logging import DefaultFormatter

from service.observability.record import current_record
from service.settings import LogFormat

_log = logging.getLogger(__name__)

# What could end a line, or make a terminal do something: C0 and C1 control characters, and Unicode's line separators.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def logged(
    log_format: LogFormat, log_level: str, stream: TextIO | None = None, frontend: int | None = None
) -> Iterator[None]:
    """Send everything that is logged, warned of or uncaught to a stream, else the standard error, in one format.

    Where several front ends write to the same stream, each line has the number of its own.

    Only the service and uvicorn may write below warnings: Pillow, for one, would log what stands in an image. What it
    warns of in images is left out too: a client could have a line written for every text it can make it say.

    A line is written by whoever logs it. That takes microseconds, and a line that was logged is out when the process
    dies; a thread of its own for it would cost a request more in switching than it saves. The price is that a reader
    who lets the pipe run full stops the service too.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter("%(levelprefix)s %(message)s"))
    if frontend is not None:
        handler.addFilter(_Numbered(frontend))
    root = logging.getLogger()
    own = [logging.getLogger(name) for name in ("service", "uvicorn")]
    levels = [logger.level for logger in own]
    hooks = sys.excepthook, threading.excepthook
    root.addHandler(handler)
    for logger in own:
        logger.setLevel(log_level.upper())
    logging.captureWarnings(True)
    sys.excepthook, threading.excepthook = _log_uncaught, _log_uncaught_in_thread
    try:
        with warnings.catch_warnings():
            for category in (UserWarning, RuntimeWarning):  # of the second kind are warnings of too many pixels
                warnings.filterwarnings("ignore", category=category, module=r"PIL\.")
            yield
    finally:
        sys.excepthook, threading.excepthook = hooks
        logging.captureWarnings(False)
        for logger, level in zip(own, levels, strict=True):
            logger.setLevel(level)
        root.removeHandler(handler)


class _Numbered(logging.Filter):
    """Writes onto each record which front end it is of."""

    def __init__(self, frontend: int) -> None:
        super().__init__()
        self._frontend = frontend

    def filter(self, record: logging.LogRecord) -> bool:
        record.frontend = self._frontend
        return True


class TextFormatter(DefaultFormatter):
    """Uvicorn's format, with fields as `name=value` after the message.

    Only the lines it begins itself begin at the margin, whatever a message or an exception says.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of an exception."""
        record.exc_text = None  # where another handler has kept its own form of the exception
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """The first line."""
        fields = [f"{name}={_plain(value)}" for name, value in _fields(record).items()]
        record.message = " ".join([_escaped(record.message.rstrip()), *fields])
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The lines of an exception, indented."""
        return "\n".join("  " + _escaped(line) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object: timestamp (RFC 3339, UTC), level, logger, message, fields, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        written = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "timestamp": written.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().rstrip(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line).decode()
        except TypeError:  # a path, for example, may have bytes that are no UTF-8
            return orjson.dumps({name: _utf8(value) for name, value in line.items()}, default=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Of the request in whose course the line was written, and those given to the logger as `extra={"fields": ...}`."""
    request = current_record.get()
    known = {
        "request_id": request and request.request_id,
        "trace_id": request and request.trace_id,
        "span_id": request and request.span_id,
        **getattr(record, "fields", {}),
        "frontend": getattr(record, "frontend", None),
    }
    return {name: value for name, value in known.items() if value is not None}


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _plain(value: object) -> str:
    """A value as it can stand after `name=`."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return _escaped(text)


def _utf8(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    if uncaught.exc_value is not None and not issubclass(uncaught.exc_type, SystemExit):
        name = uncaught.thread.name if uncaught.thread else "?"
        error = (uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
        _log.critical("uncaught exception in thread %s", name, exc_info=error)
