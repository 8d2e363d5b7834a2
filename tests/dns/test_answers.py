"""Question + scope + table → records, NODATA, or not ours."""

from dataclasses import replace

import pytest

from mesh.catalog.model import Network, ServiceNetwork
from mesh.dns.answers import Answer, Outcome, answer, candidates
from mesh.dns.names import NameTable
from mesh.dns.scope import Scope
from mesh.dns.wire import QType, Question
from tests.dns.world import BACK, BOTH, DB, FRONT, OWN, WEB, snapshot

TABLE = NameTable.of(snapshot())
LOCAL = Scope(networks=((OWN.id, OWN.name),))


def ask(
    name: str, qtype: int = QType.A, scope: Scope = BOTH, table: NameTable = TABLE, qclass: int = 1
) -> Answer:
    return answer(Question(name, qtype, qclass, b""), scope, table)


def data(*args: object, **how: object) -> set[str]:
    return {record.data for record in ask(*args, **how).records}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["web", "WEB", "shop_web", "web.frontend", "Web.Frontend"])
def test_a_name_plain_or_with_its_network(name: str) -> None:
    assert data(name) == {"10.1.0.2"}


@pytest.mark.parametrize("name", ["tasks.web", "tasks.web.frontend", "TASKS.shop_web"])
def test_tasks_of_a_service(name: str) -> None:
    assert data(name) == {"10.1.0.3", "10.1.0.4"}


def test_names_and_networks_may_contain_dots() -> None:
    assert data("shop_web.1.aa.frontend") == {"10.1.0.3"}
    assert data("tool.own.net", scope=LOCAL) == {"172.20.0.2"}


def test_readings_come_unqualified_first_then_by_ever_longer_network_names() -> None:
    scope = Scope(networks=(("1", "c"), ("2", "b.c"), ("3", "a.b.c"), ("4", "C")))
    read = [(c.name, [id_ for id_, _ in c.networks]) for c in candidates("a.b.c", scope)]
    assert read == [("a.b.c", ["1", "2", "3", "4"]), ("a.b", ["1", "4"]), ("a", ["2"])]


def test_an_unqualified_match_beats_a_qualified_one() -> None:
    dotted = replace(DB, id="s7", networks=(ServiceNetwork("n2", "10.2.0.7", ("web.frontend",)),))
    assert data("web.frontend", table=NameTable.of(snapshot([WEB, dotted]))) == {"10.2.0.7"}


def test_the_first_network_wins_and_nothing_is_merged_across_networks() -> None:
    twin = replace(DB, id="s7", networks=(ServiceNetwork("n2", "10.2.0.7", ("web",)),))
    table = NameTable.of(snapshot([WEB, twin]))
    assert data("web", table=table) == {"10.1.0.2"}
    assert data("web", scope=Scope(networks=tuple(reversed(BOTH.networks))), table=table) == {"10.2.0.7"}
    assert data("web.backend", table=table) == {"10.2.0.7"}


def test_a_network_that_the_asker_is_not_on_does_not_exist() -> None:
    for name in ("db", "db.backend", "tasks.db", "db.1.ee"):
        assert ask(name, scope=FRONT).outcome is Outcome.UNKNOWN
    assert ask("3.0.2.10.in-addr.arpa", QType.PTR, FRONT).outcome is Outcome.UNKNOWN
    assert data("db", scope=BACK) == {"10.2.0.2"}


@pytest.mark.parametrize(
    "qtype", [QType.AAAA, QType.MX, QType.TXT, QType.SRV, QType.HTTPS, QType.SOA, QType.PTR, 65280]
)
def test_every_other_type_of_a_known_name_is_nodata(qtype: int) -> None:
    assert ask("web", qtype).outcome is Outcome.NODATA
    assert ask("nothing", qtype).outcome is Outcome.UNKNOWN


def test_a_service_without_serving_task_is_nodata() -> None:
    table = NameTable.of(snapshot([replace(WEB, tasks=())]))
    assert ask("web", table=table).outcome is Outcome.NODATA
    assert ask("tasks.web", table=table).outcome is Outcome.NODATA


def test_both_families_where_there_are_both() -> None:
    assert data("tool", QType.AAAA, LOCAL) == {"fd00::2"}
    assert data("tool", QType.ANY, LOCAL) == {"fd00::2", "172.20.0.2"}


def test_pointers() -> None:
    assert data("3.0.1.10.in-addr.arpa", QType.PTR) == {"shop_web.1.aa.frontend."}
    assert data("2.0.1.10.IN-ADDR.ARPA", QType.PTR) == {"shop_web.frontend."}
    assert ask("3.0.1.10.in-addr.arpa").outcome is Outcome.NODATA
    assert ask("8.8.8.8.in-addr.arpa", QType.PTR).outcome is Outcome.UNKNOWN


def test_an_address_given_by_two_contributors_is_named_once() -> None:
    twin = replace(WEB, id="s8", name="other", networks=(ServiceNetwork("n1", "10.1.0.2", ("web",)),))
    assert len(ask("web", table=NameTable.of(snapshot([WEB, twin]))).records) == 1


def test_a_service_left_to_docker() -> None:
    table = NameTable.of(snapshot([replace(WEB, labels={"mesh.enable": "false"})]))
    assert ask("web", table=table).outcome is Outcome.LEFT
    assert ask("3.0.1.10.in-addr.arpa", QType.PTR, table=table).outcome is Outcome.LEFT


def test_other_classes_are_not_ours() -> None:
    assert ask("web", qclass=3).outcome is Outcome.UNKNOWN


def test_an_answer_says_on_which_names_it_depends() -> None:
    assert ask("Web.Frontend").names == {"web.frontend", "web"}
    assert ask("nope.backend").names == {"nope.backend", "nope"}


def test_names_that_are_nothing_but_dots_and_network_names() -> None:
    for name in ("", "frontend", "backend.frontend"):
        assert ask(name).outcome is Outcome.UNKNOWN


def test_networks_with_equal_names_are_asked_in_order() -> None:
    twin = Network("n4", "frontend")
    there = replace(DB, networks=(ServiceNetwork("n4", "10.4.0.2"),))
    table = NameTable.of(snapshot([there], networks=[twin]))
    assert data("db.frontend", scope=Scope(networks=(("n1", "frontend"), ("n4", "frontend"))), table=table)
