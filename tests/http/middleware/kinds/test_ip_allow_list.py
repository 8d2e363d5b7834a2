"""`ipallowlist`: which clients are let in, by which of their addresses."""

from ipaddress import ip_network

import pytest

from mesh.http.middleware.client_key import IpStrategy
from mesh.http.middleware.kinds.ip_allow_list import IpAllowList
from tests.support.middleware_runs import plan_of

NO_PROXIES = IpStrategy(excluded=(ip_network("10.0.0.0/8"),))


@pytest.mark.parametrize(("client", "allowed"), [("10.0.0.1", True), ("10.1.0.1", False), ("::1", True)])
def test_clients_of_these_networks_are_let_in(client: str, allowed: bool) -> None:
    configured = IpAllowList((ip_network("10.0.0.0/24"), ip_network("::1/128")))
    answer = plan_of(configured, client=client).answer
    assert (answer.status if answer else None) == (None if allowed else 403)


@pytest.mark.parametrize(
    ("strategy", "forwarded_for", "status"),
    [
        (IpStrategy(depth=1), ("6.6.6.6", "192.0.2.1"), None),
        (IpStrategy(depth=2), ("192.0.2.1", "6.6.6.6"), None),
        (IpStrategy(depth=1), ("192.0.2.1", "6.6.6.6"), 404),
        (IpStrategy(depth=3), ("192.0.2.1", "6.6.6.6"), 404),
        (IpStrategy(depth=1), (), 404),
        (IpStrategy(depth=1), ("nonsense",), 404),
        (NO_PROXIES, ("192.0.2.1", "10.1.1.1", "10.2.2.2"), None),
        (NO_PROXIES, ("192.0.2.1", "6.6.6.6", "10.2.2.2"), 404),
        (NO_PROXIES, ("10.2.2.2",), 404),
        (IpStrategy(), ("192.0.2.1",), 404),
    ],
)
def test_the_strategy_says_which_address_is_the_clients(
    strategy: IpStrategy, forwarded_for: tuple[str, ...], status: int | None
) -> None:
    configured = IpAllowList((ip_network("192.0.2.0/24"),), strategy, 404)
    answer = plan_of(configured, forwarded_for=forwarded_for).answer
    assert (answer.status if answer else None) == status


def test_it_needs_trusted_proxies_only_with_a_strategy() -> None:
    assert IpAllowList((), NO_PROXIES).uses_forwarded_address
    assert not IpAllowList(()).uses_forwarded_address
