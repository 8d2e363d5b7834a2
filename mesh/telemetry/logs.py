"""Structured logging on the standard library: one line per event, as JSON for machines or text for people.

Modules log in the ordinary way; whatever they pass in `extra` becomes a field. `event` is the short form.
Passwords and their hashes are taken out of each line (`redaction`). A message that a broken world repeats
goes through `Repeats` first, which lets one pass per interval and says how many it held back.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from mesh.telemetry.redaction import redact

MAX_KEYS = 1000  # messages that one `Repeats` remembers: more would be a leak, and nobody reads them

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup(level: str, format_: str, stream: TextIO | None = None) -> None:
    """Send the process's log to `stream` (default: stderr). `level`: debug … error; `format_`: json, text."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def event(logger: logging.Logger, level: int, what: str, **fields: object) -> None:
    """Log that `what` happened, with the facts beside it: event(log, INFO, "container captured", id=…)."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", what, extra={"fields": fields}, stacklevel=2)


class JsonFormatter(logging.Formatter):
    """{"ts": "2026-01-02T03:04:05.678Z", "level": "info", "event": …, "logger": …, fields…}"""

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        line = fields_of(record) | head  # a field cannot pose as one of ours
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps({**head, **line}, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """2026-01-02T03:04:05.678Z info  container captured  id=abc"""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_timestamp(record)} {record.levelname.lower():<7} {_one_line(record.getMessage())}"]
        parts += [f" {key}={_one_line(value)}" for key, value in fields_of(record).items()]
        if record.exc_info:
            parts.append("\n" + self.formatException(record.exc_info))
        return redact("".join(parts))


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The facts of a record: `event`'s fields, and every `extra` that is not the library's own."""
    fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    inner = fields.pop("fields", {})
    return fields | dict(inner) if isinstance(inner, Mapping) else fields


class Repeats:
    """Lets a message pass once per `interval` seconds and key.

    held = repeats.passed("upstream 10.0.0.1")
    if held is not None: event(log, WARNING, "upstream silent", repeated=held)
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}

    def passed(self, key: str) -> int | None:
        """How many were held back since the last that passed; None: hold this one back too."""
        now = self._clock()
        since, held = self._last.get(key, (None, 0))
        if since is not None and now - since < self._interval:
            self._last[key] = (since, held + 1)
            return None
        self._last.pop(key, None)  # to the young end: the oldest is the first to be forgotten
        self._last[key] = (now, 0)
        for old in self._too_many():
            del self._last[old]
        return held

    def _too_many(self) -> Iterator[str]:
        yield from list(self._last)[: max(0, len(self._last) - MAX_KEYS)]


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _one_line(value: object) -> str:
    """A value that holds line breaks must not look like a line of ours."""
    text = str(value)
    return repr(text) if any(not c.isprintable() for c in text) else text
