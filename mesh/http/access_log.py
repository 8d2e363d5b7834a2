"""One line for each request that is over: JSON, or the common format with what people append. Pure."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

TEXT_MAX = 2048  # characters of what a client sent


@dataclass(frozen=True, slots=True)
class AccessLogEntry:
    """Of one request. Times in seconds, sizes in bytes."""

    at: float  # seconds since 1970 when it ended
    client: str
    method: str
    host: str
    target: str
    version: str
    status: int
    sent: int
    received: int
    took: float
    route: str
    service: str
    endpoint: str
    attempts: int
    fault: str
    request_id: str
    referer: str
    agent: str


def as_json(entry: AccessLogEntry) -> str:
    time = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds")
    fields = {"time": time, **{name: _cut(getattr(entry, name)) for name in _SHOWN}}
    fields["took"] = round(entry.took, 6)
    return json.dumps({name: value for name, value in fields.items() if value != ""}, ensure_ascii=True)


def as_common(entry: AccessLogEntry) -> str:
    """Apache's combined format, with service, endpoint and milliseconds behind it."""
    time = datetime.fromtimestamp(entry.at, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    request = f"{entry.method} {entry.target} {entry.version}"
    return " ".join(
        (
            f"{entry.client} - - [{time}] {_quoted(request)} {entry.status} {entry.sent}",
            _quoted(entry.referer),
            _quoted(entry.agent),
            _quoted(entry.service),
            _quoted(entry.endpoint),
            f"{entry.took * 1000:.0f}ms",
        )
    )


_SHOWN = (
    "client",
    "method",
    "host",
    "target",
    "version",
    "status",
    "sent",
    "received",
    "route",
    "service",
    "endpoint",
    "attempts",
    "fault",
    "request_id",
    "referer",
    "agent",
)


def _cut(value: object) -> object:
    return value[:TEXT_MAX] if isinstance(value, str) else value


def _quoted(text: str) -> str:
    """Nothing a client sends can end the quotes or the line."""
    shown = text[:TEXT_MAX].encode("unicode_escape").decode().replace('"', "\\x22")
    return f'"{shown}"' if shown else '"-"'
