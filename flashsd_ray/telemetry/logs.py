"""Log lines of one process: text for people or JSON for machines, each with the request that it is about.

Lines name requests, sizes, times and parts; what a client said or showed, and its key, is never among them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from flashsd_ray.config import TelemetryConfig

ROOT = "flashsd_ray"
# A client may choose its request id: no character of it may end a line or steer a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_request_id: ContextVar[str] = ContextVar("request_id", default="")


def log_as(config: TelemetryConfig, role: str) -> None:
    """Everything this package logs in this process goes to stderr in the configured form, under this role."""
    logger = logging.getLogger(ROOT)
    handler = _ToStderr()
    handler.setFormatter(_JsonFormatter(role) if config.log_format == "json" else _TextFormatter(role))
    logger.handlers = [handler]  # and no other: the command line has one for its own warnings
    logger.setLevel(config.log_level.upper())
    logger.propagate = False  # a library that sets up the root logger must not double our lines


@contextmanager
def about(request_id: str) -> Iterator[None]:
    """Every line that is logged inside, also by tasks begun there, names the request."""
    before = _request_id.get()
    _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.set(before)  # not a token's reset: a generator may be closed in another context


def fields(**values: Any) -> dict[str, Any]:
    """The ``extra`` of a logging call whose values stand beside the message, each under its name."""
    return {"fields": values}


class _ToStderr(logging.Handler):
    """Writes to what stderr is at the time: whoever redirects it has our lines too."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a line that cannot be written must not stop what it tells of
            self.handleError(record)


class _Formatter(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def fields_of(self, record: logging.LogRecord) -> Mapping[str, Any]:
        values: Mapping[str, Any] = getattr(record, "fields", {})
        return values

    def time_of(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def exception_of(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class _TextFormatter(_Formatter):
    """time, level, role, request, message and values, then the indented exception."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [self.time_of(record), f"{record.levelname:<7}", self.role, _one_line(_request_id.get() or "-")]
        parts.append(_one_line(record.getMessage()))
        parts += [f"{name}={_one_line(str(value))}" for name, value in self.fields_of(record).items()]
        line = " ".join(parts)
        exception = _CONTROL_IN_LINES.sub(_escaped, self.exception_of(record))
        return f"{line}\n{textwrap.indent(exception, '    ')}" if exception else line


class _JsonFormatter(_Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": self.time_of(record),
            "level": record.levelname.lower(),
            "role": self.role,
            "pid": os.getpid(),
            "request_id": _request_id.get(),
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in self.fields_of(record).items() if name not in line}
        exception = self.exception_of(record)
        if exception:
            line["exception"] = exception
        return json.dumps(line, default=str)


def _one_line(text: str) -> str:
    return _CONTROL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
