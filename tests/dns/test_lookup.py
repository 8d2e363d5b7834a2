"""Question + scope + table → records, NODATA, or not ours."""

from dataclasses import replace

import pytest

from mesh.catalog.model import Network, ServiceNetwork
from mesh.dns.lookup import LookupAnswer, LookupOutcome, answer, candidates
from mesh.dns.name_policy import DOCKERS, OURS, Elsewhere, NamePolicy, SharedAlias
from mesh.dns.name_table import NameTable
from mesh.dns.scope import Scope
from mesh.dns.wire import DnsQuestion, QType
from tests.dns.world import BACK, BACKEND, BOTH, DB, FRONT, FRONTEND, OWN, WEB, of_stack, snapshot

TABLE = NameTable(snapshot())
LOCAL = Scope(networks=((OWN.id, OWN.name),))


def ask(
    name: str,
    qtype: int = QType.A,
    scope: Scope = BOTH,
    table: NameTable = TABLE,
    qclass: int = 1,
    policy: NamePolicy = OURS,
) -> LookupAnswer:
    return answer(DnsQuestion(name, qtype, qclass, b""), scope, table, policy)


def data(*args: object, **how: object) -> set[str]:
    return {record.data for record in ask(*args, **how).records}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["web", "WEB", "shop_web", "web.frontend", "Web.Frontend"])
def test_a_name_plain_or_with_its_network(name: str) -> None:
    assert data(name) == {"10.1.0.2"}


def test_a_reversed_address_is_never_read_as_a_name_on_a_network() -> None:
    assert ask("2.0.1.10.in-addr.arpa", QType.PTR).outcome is LookupOutcome.RECORDS
    assert ask("2.0.1.10.in-addr.arpa.frontend", QType.PTR).outcome is LookupOutcome.UNKNOWN


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
    assert data("web.frontend", table=NameTable(snapshot([WEB, dotted]))) == {"10.2.0.7"}


def test_the_first_network_wins_and_nothing_is_merged_across_networks() -> None:
    twin = replace(DB, id="s7", networks=(ServiceNetwork("n2", "10.2.0.7", ("web",)),))
    table = NameTable(snapshot([WEB, twin]))
    assert data("web", table=table) == {"10.1.0.2"}
    assert data("web", scope=Scope(networks=tuple(reversed(BOTH.networks))), table=table) == {"10.2.0.7"}
    assert data("web.backend", table=table) == {"10.2.0.7"}


def test_a_network_that_the_asker_is_not_on_does_not_exist() -> None:
    for name in ("db", "db.backend", "tasks.db", "db.1.ee"):
        assert ask(name, scope=FRONT).outcome is LookupOutcome.UNKNOWN
    assert ask("3.0.2.10.in-addr.arpa", QType.PTR, FRONT).outcome is LookupOutcome.UNKNOWN
    assert data("db", scope=BACK) == {"10.2.0.2"}


@pytest.mark.parametrize(
    "qtype", [QType.AAAA, QType.MX, QType.TXT, QType.SRV, QType.HTTPS, QType.SOA, QType.PTR, 65280]
)
def test_every_other_type_of_a_known_name_is_nodata(qtype: int) -> None:
    assert ask("web", qtype).outcome is LookupOutcome.NODATA
    assert ask("nothing", qtype).outcome is LookupOutcome.UNKNOWN


def test_a_service_without_serving_task_is_nodata() -> None:
    table = NameTable(snapshot([replace(WEB, tasks=())]))
    assert ask("web", table=table).outcome is LookupOutcome.NODATA
    assert ask("tasks.web", table=table).outcome is LookupOutcome.NODATA


def test_both_families_where_there_are_both() -> None:
    assert data("tool", QType.AAAA, LOCAL) == {"fd00::2"}
    assert data("tool", QType.ANY, LOCAL) == {"fd00::2", "172.20.0.2"}


def test_pointers() -> None:
    assert data("3.0.1.10.in-addr.arpa", QType.PTR) == {"shop_web.1.aa.frontend."}
    assert data("2.0.1.10.IN-ADDR.ARPA", QType.PTR) == {"shop_web.frontend."}
    assert ask("3.0.1.10.in-addr.arpa").outcome is LookupOutcome.NODATA
    assert ask("8.8.8.8.in-addr.arpa", QType.PTR).outcome is LookupOutcome.UNKNOWN


def test_an_address_given_by_two_contributors_is_named_once() -> None:
    twin = replace(WEB, id="s8", name="other", networks=(ServiceNetwork("n1", "10.1.0.2", ("web",)),))
    assert len(ask("web", table=NameTable(snapshot([WEB, twin]))).records) == 1


def test_a_service_left_to_docker() -> None:
    table = NameTable(snapshot([replace(WEB, labels={"mesh.enable": "false"})]))
    assert ask("web", table=table).outcome is LookupOutcome.LEFT
    assert ask("3.0.1.10.in-addr.arpa", QType.PTR, table=table).outcome is LookupOutcome.LEFT


def test_other_classes_are_not_ours() -> None:
    assert ask("web", qclass=3).outcome is LookupOutcome.UNKNOWN


def test_an_answer_says_on_which_names_it_depends() -> None:
    assert ask("Web.Frontend").names == {"web.frontend", "web"}
    assert ask("nope.backend").names == {"nope.backend", "nope"}


def test_names_that_are_nothing_but_dots_and_network_names() -> None:
    for name in ("", "frontend", "backend.frontend"):
        assert ask(name).outcome is LookupOutcome.UNKNOWN


def test_networks_with_equal_names_are_asked_in_order() -> None:
    twin = Network("n4", "frontend")
    there = replace(DB, networks=(ServiceNetwork("n4", "10.4.0.2"),))
    table = NameTable(snapshot([there], networks=[twin]))
    assert data("db.frontend", scope=Scope(networks=(("n1", "frontend"), ("n4", "frontend"))), table=table)


# --- stacks that share a name -------------------------------------------------------------------------------

SHARED = NameTable(snapshot([of_stack("blue", FRONTEND, 1), of_stack("red", FRONTEND, 2)]))
UNION = replace(OURS, shared_alias=SharedAlias.UNION)


@pytest.mark.parametrize(
    ("stack", "policy", "expected"),
    [
        ("blue", OURS, {"10.1.0.10"}),
        ("red", OURS, {"10.1.0.20"}),
        ("green", OURS, {"10.1.0.10", "10.1.0.20"}),  # has none of its own
        ("", OURS, {"10.1.0.10", "10.1.0.20"}),
        ("blue", UNION, {"10.1.0.10", "10.1.0.20"}),
    ],
)
@pytest.mark.parametrize("name", ["web", "WEB.frontend"])
def test_an_asker_of_a_stack_gets_its_own_stacks(
    name: str, stack: str, policy: NamePolicy, expected: set[str]
) -> None:
    assert data(name, scope=replace(BOTH, stack=stack), table=SHARED, policy=policy) == expected


def test_other_stacks_are_reached_by_their_own_names() -> None:
    blue = replace(BOTH, stack="blue")
    assert data("red_web", scope=blue, table=SHARED) == {"10.1.0.20"}
    assert data("tasks.red_web", scope=blue, table=SHARED) == {"10.1.0.21"}
    assert data("tasks.web", scope=blue, table=SHARED) == {"10.1.0.11"}
    assert data("20.0.1.10.in-addr.arpa", QType.PTR, blue, SHARED) == {"red_web.frontend."}


def test_a_network_on_which_the_own_stack_has_the_name_comes_before_all_others() -> None:
    table = NameTable(snapshot([of_stack("red", FRONTEND, 2), of_stack("blue", BACKEND, 1)]))
    blue = replace(BOTH, stack="blue")
    found = ask("web", scope=blue, table=table)
    assert (found.network, {r.data for r in found.records}) == ("backend", {"10.2.0.10"})
    assert found.rule == "stack 'blue' owns it there, and not on frontend"
    assert data("web.frontend", scope=blue, table=table) == {"10.1.0.20"}  # said plainly
    assert data("web", scope=blue, table=table, policy=UNION) == {"10.1.0.20"}
    assert data("web", scope=BOTH, table=table) == {"10.1.0.20"}


def test_an_empty_service_of_the_own_stack_is_not_replaced_by_a_strangers() -> None:
    empty = replace(of_stack("blue", FRONTEND, 1), tasks=())
    table = NameTable(snapshot([empty, of_stack("red", FRONTEND, 2)]))
    blue, forward = replace(BOTH, stack="blue"), replace(OURS, empty_services=Elsewhere.FORWARD)
    assert ask("web", scope=blue, table=table).outcome is LookupOutcome.NODATA
    assert ask("web", scope=blue, table=table, policy=forward).outcome is LookupOutcome.ELSEWHERE
    assert data("web", scope=blue, table=table, policy=DOCKERS) == {"10.1.0.20"}


# --- links --------------------------------------------------------------------------------------------------


LINKED = replace(BOTH, links=(("n1", "db", "tool"), ("n2", "DB", "db.1.ee"), ("n1", "shop", "nobody")))


def test_a_link_alias_is_another_name_of_what_it_names() -> None:
    found = ask("db", scope=LINKED)
    assert (found.network, {r.data for r in found.records}) == ("frontend", {"10.1.0.9"})
    assert found.rule == "it is the asker's link to 'tool'"
    assert found.names == {"tool"}
    assert data("db.frontend", scope=LINKED) == {"10.1.0.9"}
    assert (
        ask("db", scope=replace(FRONT, stack="x")).outcome is LookupOutcome.UNKNOWN
    )  # private to its container


def test_links_ignore_case_unless_there_is_one_in_the_exact_spelling() -> None:
    links = replace(BOTH, links=(("n1", "Db", "tool"), ("n1", "dB", "web")))
    assert data("dB", scope=links) == {"10.1.0.2"}
    assert data("Db", scope=links) == {"10.1.0.9"}
    assert data("DB", scope=links) == {"10.1.0.9"}


def test_a_name_that_is_a_link_alias_on_a_network_is_not_looked_up_there() -> None:
    assert ask("shop", scope=LINKED).outcome is LookupOutcome.UNKNOWN
    assert data("shop", scope=BOTH) == {"10.1.0.5", "10.1.0.6"}


def test_a_link_on_any_network_beats_a_name_on_the_first() -> None:
    links = replace(BOTH, links=(("n2", "web", "db"),))
    assert data("web", scope=links) == {"10.2.0.2"}


# --- as Docker does -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("qtype", [QType.TXT, QType.SRV, QType.HTTPS, QType.SOA, QType.PTR, QType.ANY, 65280])
def test_other_types_may_be_forwarded(qtype: int) -> None:
    policy = replace(OURS, other_types=Elsewhere.FORWARD)
    assert ask("web", qtype, policy=policy).outcome is LookupOutcome.ELSEWHERE
    assert ask("web", QType.AAAA, policy=policy).outcome is LookupOutcome.NODATA
    assert ask("web", QType.MX, policy=policy).outcome is LookupOutcome.NODATA
    assert ask("3.0.1.10.in-addr.arpa", QType.A, policy=policy).outcome is LookupOutcome.ELSEWHERE
    assert data("3.0.1.10.in-addr.arpa", QType.PTR, policy=policy) == {"shop_web.1.aa.frontend."}


def test_a_service_without_serving_task_may_be_forwarded() -> None:
    table = NameTable(snapshot([replace(WEB, tasks=()), DB]))
    policy = replace(OURS, empty_services=Elsewhere.FORWARD)
    for name in ("web", "tasks.web", "web.frontend"):
        assert ask(name, table=table, policy=policy).outcome is LookupOutcome.UNKNOWN
    assert data("db", table=table, policy=policy) == {"10.2.0.2"}


def test_an_empty_service_does_not_hide_one_on_the_next_network_where_names_are_dockers() -> None:
    empty = replace(WEB, tasks=())
    twin = replace(DB, networks=(ServiceNetwork("n2", "10.2.0.7", ("web",)),))
    table = NameTable(snapshot([empty, twin]))
    assert data("web", table=table, policy=replace(OURS, empty_services=Elsewhere.FORWARD)) == {"10.2.0.7"}
    assert ask("web", table=table).outcome is LookupOutcome.NODATA


def test_the_virtual_ip_of_an_empty_service_has_a_pointer_while_its_name_exists() -> None:
    table = NameTable(snapshot([replace(WEB, tasks=())]))
    forward = replace(OURS, empty_services=Elsewhere.FORWARD)
    assert data("2.0.1.10.in-addr.arpa", QType.PTR, table=table) == {"shop_web.frontend."}
    assert (
        ask("2.0.1.10.in-addr.arpa", QType.PTR, table=table, policy=forward).outcome is LookupOutcome.UNKNOWN
    )


def test_virtual_ips_may_be_without_pointer() -> None:
    policy = replace(OURS, vip_ptr=False)
    assert ask("2.0.1.10.in-addr.arpa", QType.PTR, policy=policy).outcome is LookupOutcome.UNKNOWN
    assert data("3.0.1.10.in-addr.arpa", QType.PTR, policy=policy) == {"shop_web.1.aa.frontend."}


def test_who_searches_for_short_names_has_unknown_ones_kept_inside() -> None:
    searching = replace(BOTH, ndots=True)
    assert ask("nosuch", scope=searching).outcome is LookupOutcome.SHORT
    assert ask("nosuch", QType.AAAA, scope=searching).outcome is LookupOutcome.SHORT
    assert ask("nosuch", QType.TXT, scope=searching).outcome is LookupOutcome.UNKNOWN
    assert ask("nosuch.example", scope=searching).outcome is LookupOutcome.UNKNOWN
    assert ask("web", scope=searching).outcome is LookupOutcome.RECORDS
    assert ask("nosuch").outcome is LookupOutcome.UNKNOWN
