"""Source hash: few clients move, all nodes agree, and a connection does not score every endpoint."""

from collections import Counter

import pytest

from mesh.balance import rendezvous
from mesh.balance.policies import Endpoint
from mesh.balance.rendezvous import Rendezvous, best, slot_of

A, B, C = (Endpoint(f"10.0.0.{n}", 80) for n in (1, 2, 3))
ALL = (A, B, C)
CLIENTS = [f"10.1.{n // 250}.{n % 250}" for n in range(3000)]


def chosen(endpoints: tuple[Endpoint, ...]) -> dict[str, Endpoint]:
    table = Rendezvous(endpoints)
    return {client: table.choose(client, endpoints) for client in CLIENTS}


def test_only_clients_of_the_endpoint_that_goes_move_and_shares_are_alike() -> None:
    before, after = chosen(ALL), chosen((A, C))
    assert all(after[client] is before[client] for client in CLIENTS if before[client] is not B)
    assert min(Counter(before.values()).values()) > 800


def test_while_one_cannot_be_chosen_its_clients_go_where_they_would_without_it() -> None:
    table, without = Rendezvous(ALL), chosen((A, C))
    assert {client: table.choose(client, [A, C]) for client in CLIENTS} == without


def test_all_nodes_agree_in_whatever_order_they_know_the_tasks() -> None:
    elsewhere = tuple(one._replace(task="other") for one in reversed(ALL))
    here, there = chosen(ALL), chosen(elsewhere)
    assert {client: str(one) for client, one in here.items()} == {
        client: str(one) for client, one in there.items()
    }


def test_endpoints_are_scored_once_per_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = list[int]()

    def counted(slot: int, endpoints: tuple[Endpoint, ...]) -> Endpoint:
        scored.append(slot)
        return best(slot, endpoints)

    monkeypatch.setattr(rendezvous, "best", counted)
    table = Rendezvous(ALL)
    for client in CLIENTS * 3:
        table.choose(client, ALL)
    assert sorted(scored) == sorted({slot_of(client) for client in CLIENTS})
