"""The access log: a line to standard output for each request that an entry point got, or a share of them."""

import io
import random
import sys
import time
from collections.abc import Callable
from time import monotonic

from mesh.http.access_log import AccessLogEntry, as_common, as_json
from mesh.http.config.model import HttpRoute
from mesh.http.exchange import Exchange
from mesh.telemetry.redaction import redact
from sidecar.config import AccessLog

Over = Callable[[Exchange, HttpRoute | None], None]


def access_logger(kind: AccessLog, share: float) -> Over:
    """To be told of each request that is over. A line is one write: those of several processes stay whole."""
    if kind is AccessLog.OFF:
        return _nothing
    shown = as_json if kind is AccessLog.JSON else as_common
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # into a pipe, it would write when 8 KB are full

    def log(exchange: Exchange, route: HttpRoute | None) -> None:
        if share >= 1 or random.random() < share:
            sys.stdout.write(redact(shown(_entry(exchange, route))) + "\n")

    return log


def _nothing(exchange: Exchange, route: HttpRoute | None) -> None:
    """Nobody wants to know."""


def _entry(exchange: Exchange, route: HttpRoute | None) -> AccessLogEntry:
    head, last = exchange.head, exchange.tried[-1] if exchange.tried else None

    def shown(value: bytes | None) -> str:
        return (value or b"").decode("latin-1")

    return AccessLogEntry(
        at=time.time(),
        client=exchange.source,
        method=shown(head.method),
        host=head.host,
        target=shown(head.target),
        version=exchange.client.edge.version or f"HTTP/1.{head.minor}",
        status=exchange.status,
        sent=exchange.sent,
        received=exchange.received,
        took=monotonic() - exchange.started,
        route=route.name if route else "",
        service=route.service if route else "",
        endpoint=str(last.endpoint) if last else "",
        attempts=len(exchange.tried),
        fault=exchange.fault.reason if exchange.fault else "",
        request_id=shown(exchange.client.request_id),
        referer=shown(head.fields.get(b"referer")),
        agent=shown(head.fields.get(b"user-agent")),
    )
