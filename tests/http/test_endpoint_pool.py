"""Which endpoint is next, without sockets: who is left out and who is not, under every policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mesh.balance.outlier_detection import FAILURES_TO_EJECT
from mesh.balance.policies import Endpoint, Policy
from mesh.http import endpoint_pool as module
from mesh.http.endpoint_pool import HttpEndpointPool

TASKS = tuple(Endpoint(f"10.0.0.{n}", 80) for n in range(1, 6))
A, B, *_ = TASKS


@given(
    some.sampled_from(Policy),
    some.integers(1, len(TASKS)),
    some.sets(some.sampled_from(TASKS)),
    some.sets(some.sampled_from(TASKS)),
    some.lists(some.sampled_from(TASKS), unique=True, max_size=3),
    some.floats(0, 1, exclude_max=True),
)
def test_who_is_unwell_is_chosen_only_when_all_are(
    policy: Policy,
    count: int,
    unwell: set[Endpoint],
    failing: set[Endpoint],
    tried: list[Endpoint],
    chance: float,
) -> None:
    backend = HttpEndpointPool(policy, draw=lambda: chance)
    endpoints = TASKS[:count]
    backend.update_endpoints(endpoints)
    backend.leave_out(unwell)
    for one in failing & set(endpoints):
        for _ in range(FAILURES_TO_EJECT):
            backend.failed(backend.servers[one], "connect")
    offered = (set(endpoints) - unwell) or set(endpoints)
    assert {server.endpoint for server in backend.offered} == offered
    for key in ("a", "b", "c"):
        server = backend.pick(key, [backend.servers[one] for one in tried if one in backend.servers])
        if server is None:
            assert offered <= set(tried)
        else:
            assert server.endpoint in offered - set(tried)
            assert backend.takes(server) or offered - set(tried) <= failing


@pytest.mark.parametrize("policy", Policy)
def test_it_comes_back_when_it_is_well(policy: Policy) -> None:
    backend = HttpEndpointPool(policy)
    backend.update_endpoints((A,))
    backend.leave_out({A, B})
    server = backend.pick("x", [])
    assert server is not None
    assert server.endpoint == A
    backend.update_endpoints((A, B))
    backend.leave_out({A})
    assert {found.endpoint for _ in range(9) if (found := backend.pick("x", []))} == {B}
    assert not backend.takes(backend.servers[A])
    backend.leave_out(())
    assert [one.endpoint for one in backend.offered] == [A, B]
    assert backend.takes(backend.servers[A])


def test_that_it_fails_fast_makes_it_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    backend = HttpEndpointPool(Policy.P2C, draw=lambda: 0.0)
    backend.update_endpoints((A, B))
    backend.answered(backend.servers[A], now - 1.0, 200)
    backend.answered(backend.servers[B], now - 0.5, 200)
    now = 200.0
    backend.answered(backend.servers[A], now, 503)
    assert backend.pick("x", []) is backend.servers[B]
    backend.answered(backend.servers[A], now, 500)
    assert backend.pick("x", []) is backend.servers[A]


def test_one_that_has_gone_is_not_remembered() -> None:
    backend = HttpEndpointPool()
    backend.update_endpoints((A, B))
    gone = backend.servers[A]
    backend.update_endpoints((B,))
    for _ in range(FAILURES_TO_EJECT):
        backend.failed(gone, "closed")
    assert not backend.health.known_bad
    assert backend.stats.ejections == 0
