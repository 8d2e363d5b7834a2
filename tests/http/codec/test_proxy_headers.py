"""Whose request it is, and what those behind us are told of that."""

import pytest

from mesh.http.byte_budget import ByteBudget
from mesh.http.codec.h1_head import Fields, RequestFields
from mesh.http.codec.proxy_headers import ClientInfo, request_block, source_of

PROXIES = {"10.0.0.1", "10.0.0.2"}


def edge(client: str) -> ClientInfo:
    return ClientInfo(client, "http", 80, PROXIES.__contains__)


def fields(*lines: str) -> Fields:
    return Fields("".join(f"{line}\r\n" for line in ("Host: a", *lines)).encode())


@pytest.mark.parametrize(
    ("client", "forwarded", "source"),
    [
        ("1.1.1.1", [], "1.1.1.1"),
        ("1.1.1.1", ["2.2.2.2"], "1.1.1.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", ["3.3.3.3, 2.2.2.2, 10.0.0.2"], "2.2.2.2"),
        ("10.0.0.1", ["3.3.3.3", "2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["2.2.2.2, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["2.2.2.2, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["2001:DB8::1"], "2001:db8::1"),
    ],
)
def test_the_source_is_the_last_address_that_is_no_trusted_proxy(
    client: str, forwarded: list[str], source: str
) -> None:
    said = fields(*(f"X-Forwarded-For: {one}" for one in forwarded))
    assert source_of(said, edge(client)) == source


def block(client: str, *lines: str) -> dict[str, str]:
    text = request_block(RequestFields(fields(*lines)), edge(client)).decode()
    return dict(line.split(": ", 1) for line in text.split("\r\n") if line)


def test_the_fields_of_a_trusted_proxy_are_continued() -> None:
    told = block(
        "10.0.0.1",
        "X-Forwarded-For: 2.2.2.2",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
        "X_Forwarded_Proto: evil",
        "Forwarded: for=2.2.2.2",
    )
    assert told == {
        "Host": "a",
        "X-Forwarded-For": "2.2.2.2, 10.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-Port": "80",
        "X-Real-Ip": "2.2.2.2",
        "Forwarded": "for=2.2.2.2, for=10.0.0.1",
    }


def test_the_fields_of_other_clients_are_replaced() -> None:
    told = block("1.1.1.1", "X-Forwarded-For: 2.2.2.2", "X-Forwarded-Proto: https", "Forwarded: for=2.2.2.2")
    assert (told["X-Forwarded-For"], told["X-Forwarded-Proto"]) == ("1.1.1.1", "http")
    assert "Forwarded" not in told


def test_connection_removes_named_fields_but_not_those_that_frame_or_route() -> None:
    told = block("1.1.1.1", "Connection: X-A, Host, Content-Length", "X-A: 1", "Content-Length: 0")
    assert "X-A" not in told
    assert (told["Host"], told["Content-Length"]) == ("a", "0")


class TestAccount:
    def test_a_connection_has_one_account_which_is_closed_with_it(self) -> None:
        budget = ByteBudget()
        one = ClientInfo("1.1.1.1", "http", 80, budget=budget)
        account = one.account
        assert account is not None
        assert one.account is account
        assert account.take(1_000_000) is None
        assert budget.held >= 900_000
        one.close()
        assert budget.held == 0

    def test_nothing_is_counted_after_the_end_of_the_connection(self) -> None:
        budget = ByteBudget()
        early, late = (ClientInfo("1.1.1.1", "http", 80, budget=budget) for _ in range(2))
        assert early.account is not None
        for one in (early, late):
            one.close()
            if (account := one.account) is not None:
                account.take(1_000_000)
        assert budget.held == 0

    def test_a_trusted_proxy_has_no_limit_for_its_address(self) -> None:
        budget = ByteBudget(per_address=1_000_000)
        stranger, proxy = (
            ClientInfo(client, "http", 80, PROXIES.__contains__, budget=budget).account
            for client in ("1.1.1.1", "10.0.0.1")
        )
        assert stranger is not None
        assert proxy is not None
        assert stranger.take(2_000_000) is not None
        assert proxy.take(2_000_000) is None
