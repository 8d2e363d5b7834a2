"""The bytes that an HTTP/1.1 client makes us hold."""

import pytest

from mesh.http.byte_budget import CONNECTION_BYTES, ByteBudget, Over
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.downstream.client_load import ClientLoad, account_of
from mesh.http.faults import HttpFault, RequestRefused


def test_kinds_are_counted_together_and_each_can_be_released() -> None:
    account = ByteBudget().account("192.0.2.1")
    load = ClientLoad(account)
    load.hold_head(1000)
    assert load.hold_body(200) is None
    assert load.hold_response(30) is None
    assert account.held == 1230
    load.release_request()
    assert account.held == 30
    load.hold_response(0)
    assert account.held == 0


def test_setting_a_kind_replaces_what_it_was() -> None:
    account = ByteBudget().account("192.0.2.1")
    load = ClientLoad(account)
    load.hold_body(500)
    load.hold_body(100)
    assert account.held == 100


def test_more_than_a_limit_is_not_counted() -> None:
    account = ByteBudget(per_address=100_000).account("192.0.2.1")
    load = ClientLoad(account)
    assert load.hold_response(200_000) is Over.ADDRESS
    assert load.hold_body(CONNECTION_BYTES + 1) is Over.CONNECTION
    assert account.held == 0


def test_a_head_beyond_a_limit_is_refused() -> None:
    load = ClientLoad(ByteBudget(per_address=100_000).account("192.0.2.1"))
    with pytest.raises(RequestRefused) as refused:
        load.hold_head(200_000)
    assert refused.value.fault is HttpFault.OVER_SHARE


def test_where_nobody_keeps_a_budget_each_connection_has_its_own() -> None:
    client = ClientInfo("192.0.2.1", "http", 80)
    assert account_of(client) is not account_of(client)
    budget = ByteBudget()
    counted = ClientInfo("192.0.2.1", "http", 80, budget=budget)
    assert account_of(counted) is account_of(counted)
