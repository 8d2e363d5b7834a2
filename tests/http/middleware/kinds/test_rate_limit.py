"""`ratelimit`: how many requests of one client pass, and when the next one may come."""

import pytest

from mesh.http.faults import HttpFault
from mesh.http.middleware.chain import build_handlers
from mesh.http.middleware.kinds import rate_limit
from mesh.http.middleware.kinds.rate_limit import RateLimit
from mesh.http.request_plan import MiddlewareHandler
from tests.support.middleware_runs import context_of, run_all

LIMITED = HttpFault.TOO_MANY_REQUESTS


def faults(
    handlers: tuple[MiddlewareHandler, ...], client: str, now: float, count: int = 1
) -> list[HttpFault | None]:
    return [run_all(handlers, context_of(client=client, now=now)).fault for _ in range(count)]


def test_each_client_has_a_rate_of_its_own() -> None:
    handlers = build_handlers([RateLimit(2.0, 3)])
    assert faults(handlers, "a", 0.0, 4) == [None, None, None, LIMITED]
    assert faults(handlers, "b", 0.0) == [None]
    assert faults(handlers, "a", 0.5, 2) == [None, LIMITED]
    assert faults(handlers, "a", 100.0, 4) == [None, None, None, LIMITED]


def test_the_answer_says_when_to_come_again() -> None:
    handlers = build_handlers([RateLimit(0.1)])
    faults(handlers, "a", 0.0)
    answer = run_all(handlers, context_of(client="a")).answer
    assert answer is not None
    assert (answer.status, dict(answer.fields)[b"Retry-After"]) == (429, b"10")


def test_the_client_not_seen_for_the_longest_time_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "CLIENTS_MAX", 2)
    handlers = build_handlers([RateLimit(0.1)])
    for client in "abc":
        faults(handlers, client, 0.0)
    assert faults(handlers, "c", 0.0) == [LIMITED]
    assert faults(handlers, "a", 0.0) == [None]
