"""Lines of the access log, whatever clients send."""

import json
from dataclasses import replace

from mesh.http.access_log import AccessLogEntry, as_common, as_json

ENTRY = AccessLogEntry(
    at=1_795_000_000.25,
    client="10.0.0.1",
    method="GET",
    host="a.example",
    target="/x?y",
    version="HTTP/1.1",
    status=200,
    sent=12,
    received=0,
    took=0.0123456789,
    route="web",
    service="web",
    endpoint="10.0.1.3:80",
    attempts=1,
    fault="",
    request_id="abc",
    referer="",
    agent='curl "x"\n\x1b[31m',
)


def test_json() -> None:
    line = as_json(ENTRY)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-18T11:06:40.250+00:00",
        "client": "10.0.0.1",
        "method": "GET",
        "host": "a.example",
        "target": "/x?y",
        "version": "HTTP/1.1",
        "status": 200,
        "sent": 12,
        "received": 0,
        "took": 0.012346,
        "route": "web",
        "service": "web",
        "endpoint": "10.0.1.3:80",
        "attempts": 1,
        "request_id": "abc",
        "agent": 'curl "x"\n\x1b[31m',
    }


def test_common() -> None:
    assert as_common(ENTRY) == (
        '10.0.0.1 - - [18/Nov/2026:11:06:40 +0000] "GET /x?y HTTP/1.1" 200 12 "-" '
        '"curl \\x22x\\x22\\n\\x1b[31m" "web" "10.0.1.3:80" 12ms'
    )


def test_what_clients_send_is_cut() -> None:
    assert len(as_json(replace(ENTRY, target="/" + "x" * 10_000))) < 3000
    assert len(as_common(replace(ENTRY, agent="x" * 10_000))) < 3000
