"""Ports by name: which name means which port, and what an asker gets for it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.catalog.model import EndpointMode, Port, Protocol, Service, ServiceNetwork
from mesh.dns.lookup import LookupAnswer, LookupOutcome, answer
from mesh.dns.name_policy import OURS, Elsewhere, NamePolicy
from mesh.dns.name_table import NameTable
from mesh.dns.scope import Scope
from mesh.dns.srv import PortName, ports_named
from mesh.dns.wire import DnsQuestion, QType
from tests.dns.world import BOTH, FRONT, FRONTEND, SHOP, WEB, of_stack, snapshot, task

PORTS = (
    Port(80, 8080),
    Port(443, 8443, name="secure"),
    Port(8080, 9090),
    Port(5353, 53, Protocol.UDP),
)
SITE = replace(WEB, ports=PORTS, labels={"mesh.dns.srv.grpc": "50051", "mesh.dns.srv.https": "9443"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_http._tcp", (8080,)),  # published at 80
        ("_HTTP._TCP", (8080,)),
        ("_http-alt._tcp", (8080,)),  # the number inside comes before the published one
        ("_8080._tcp", (8080,)),
        ("_80._tcp", (8080,)),
        ("_9090._tcp", (9090,)),
        ("_secure._tcp", (8443,)),  # the port's own name
        ("_443._tcp", (8443,)),
        ("_https._tcp", (9443,)),  # labels say it most plainly
        ("_grpc._tcp", (50051,)),
        ("_domain._udp", (53,)),
        ("_53._udp", (53,)),
        ("_5353._udp", (53,)),
        ("_domain._tcp", ()),
        ("_http._udp", ()),
        ("_http._sctp", ()),
        ("_smtp._tcp", ()),
    ],
)
def test_which_port_a_name_means(name: str, expected: tuple[int, ...]) -> None:
    wanted = PortName.of(f"{name}.web")
    assert wanted is not None
    assert ports_named(SITE, wanted) == expected


def test_several_ports_of_one_name_are_all_told_once() -> None:
    ports = (Port(1, 11, name="peer"), Port(2, 12, name="peer"), Port(3, 11, name="peer"))
    assert ports_named(replace(WEB, ports=ports), PortName("peer", "tcp", "web")) == (11, 12)


@pytest.mark.parametrize(
    "name", ["web", "_http.web", "_http._tcp", "_http._tcp.", "http._tcp.web", "_a._b.web", "_._tcp.web"]
)
def test_names_that_name_no_port(name: str) -> None:
    assert PortName.of(name) is None


# --- for an asker -------------------------------------------------------------------------------------------

RR = replace(SHOP, ports=(Port(0, 80),))
TABLE = NameTable(snapshot([SITE, RR]))


def ask(name: str, qtype: int = QType.SRV, scope: Scope = BOTH, **how: object) -> LookupAnswer:
    table, policy = how.get("table", TABLE), how.get("policy", OURS)
    assert isinstance(table, NameTable)
    assert isinstance(policy, NamePolicy)
    return answer(DnsQuestion(name, qtype, 1, b""), scope, table, policy)


def told(*args: object, **how: object) -> dict[str, tuple[str, ...]]:
    return {record.data: record.glue for record in ask(*args, **how).records}  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["web", "shop_web", "WEB", "web.frontend"])
def test_a_service_behind_a_vip_is_one_record_that_leads_to_it(base: str) -> None:
    assert told(f"_http._tcp.{base}") == {"0 0 8080 shop_web.frontend.": ("10.1.0.2",)}


@pytest.mark.parametrize("base", ["tasks.web", "tasks.shop_web.frontend"])
def test_its_tasks_are_one_record_each(base: str) -> None:
    assert told(f"_http._tcp.{base}") == {
        "0 1 8080 shop_web.1.aa.frontend.": ("10.1.0.3",),
        "0 1 8080 shop_web.2.bb.frontend.": ("10.1.0.4",),
    }


def test_without_a_vip_the_tasks_are_told() -> None:
    expected = {"0 1 80 Shop.1.cc.frontend.": ("10.1.0.5",), "0 1 80 Shop.2.dd.frontend.": ("10.1.0.6",)}
    assert told("_http._tcp.shop") == told("_http._tcp.tasks.shop") == expected


def test_a_single_task_by_its_name() -> None:
    assert told("_80._tcp.shop.1.cc") == {"0 0 80 Shop.1.cc.frontend.": ("10.1.0.5",)}


def test_services_that_share_an_alias_are_told_side_by_side_and_ones_own_alone() -> None:
    blue, red = (
        replace(of_stack(stack, FRONTEND, n), ports=(Port(80, 8000 + n),))
        for n, stack in enumerate(("blue", "red"))
    )
    table = NameTable(snapshot([blue, red]))
    assert set(told("_http._tcp.web", table=table)) == {
        "0 1 8000 blue_web.frontend.",
        "0 1 8001 red_web.frontend.",
    }
    assert set(told("_http._tcp.web", QType.SRV, replace(BOTH, stack="red"), table=table)) == {
        "0 0 8001 red_web.frontend."
    }


def test_a_target_is_not_one_that_leads_the_asker_elsewhere() -> None:
    other = replace(SITE, id="s9", name="shared", networks=(ServiceNetwork("n1", "10.1.0.40", ("www",)),))
    own = replace(
        of_stack("blue", FRONTEND, 1, "x"), networks=(ServiceNetwork("n1", "10.1.0.50", ("shared",)),)
    )
    blue = replace(FRONT, stack="blue")
    table = NameTable(snapshot([other, own]))
    assert told("_http._tcp.www", QType.SRV, blue, table=table) == {"0 0 8080 www.frontend.": ("10.1.0.40",)}
    assert told("_http._tcp.www", QType.SRV, FRONT, table=table) == {
        "0 0 8080 www.frontend.": ("10.1.0.40",)  # for it `shared` is both
    }


def test_what_a_service_has_no_port_for_is_nodata_unless_other_types_are_forwarded() -> None:
    forward = replace(OURS, other_types=Elsewhere.FORWARD)
    for name in ("_smtp._tcp.web", "_http._udp.web"):
        assert ask(name).outcome is LookupOutcome.NODATA
        assert ask(name, policy=forward).outcome is LookupOutcome.ELSEWHERE
    assert ask("_http._tcp.web", policy=forward).outcome is LookupOutcome.RECORDS
    assert ask("_http._tcp.web", QType.A, policy=forward).outcome is LookupOutcome.NODATA
    assert ask("_http._tcp.web", QType.TXT).outcome is LookupOutcome.NODATA
    assert ask("web").outcome is LookupOutcome.NODATA


def test_names_of_nobody_and_of_others_are_forwarded() -> None:
    assert ask("_http._tcp.nobody").outcome is LookupOutcome.UNKNOWN
    assert ask("_http._tcp.tool").outcome is LookupOutcome.UNKNOWN  # a container, whose ports nobody tells
    assert (
        ask("_http._tcp.db", table=NameTable(snapshot())).outcome is LookupOutcome.UNKNOWN
    )  # and one without any
    assert ask("_http._tcp.db", scope=FRONT).outcome is LookupOutcome.UNKNOWN
    assert ask("_http._tcp.web", policy=replace(OURS, srv=False)).outcome is LookupOutcome.UNKNOWN
    left = NameTable(snapshot([replace(SITE, labels={"mesh.enable": "no"})]))
    assert ask("_http._tcp.web", table=left).outcome is LookupOutcome.LEFT


def test_an_empty_service_has_no_records() -> None:
    table = NameTable(snapshot([replace(SITE, tasks=())]))
    assert ask("_http._tcp.web", table=table).outcome is LookupOutcome.NODATA
    forward = replace(OURS, empty_services=Elsewhere.FORWARD)
    assert ask("_http._tcp.web", table=table, policy=forward).outcome is LookupOutcome.UNKNOWN


def test_the_answer_depends_on_the_service_and_on_its_targets() -> None:
    assert {"tasks.web", "web", "shop_web.1.aa", "shop_web.2.bb"} <= ask("_http._tcp.tasks.web").names


NAMES = ("web", "shop_web", "blue_web", "red", "web.frontend", "x.1.y")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[NameTable, Scope]:
    """Services that take each other's names as aliases, and somebody who asks."""
    services = []
    for number in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(NAMES))
        labels = {"com.docker.stack.namespace": draw(st.sampled_from(["", "blue"]))}
        vip = f"10.1.{number}.2"
        tasks = tuple(
            task(f"{name}.{slot}.t{number}", FRONTEND, f"10.1.{number}.{slot + 3}")
            for slot in range(draw(st.integers(0, 2)))
        )
        mode = draw(st.sampled_from(EndpointMode))
        aliases = tuple(draw(st.lists(st.sampled_from(NAMES), max_size=2)))
        member = ServiceNetwork("n1", None if mode is EndpointMode.DNSRR else vip, aliases)
        services.append(Service(f"s{number}", name, mode, (member,), (Port(80, 80),), labels, tasks))
    scope = replace(FRONT, stack=draw(st.sampled_from(["", "blue"])))
    return NameTable(snapshot(services)), scope


@settings(deadline=None)
@given(worlds(), st.sampled_from(NAMES), st.sampled_from(["", "tasks."]))
def test_every_target_leads_its_asker_to_its_glue(
    world: tuple[NameTable, Scope], base: str, tasks: str
) -> None:
    table, scope = world
    for data, glue in told(f"_http._tcp.{tasks}{base}", QType.SRV, scope, table=table).items():
        target = data.split(" ")[3].removesuffix(".")
        found = ask(target, QType.A, scope, table=table)
        assert {record.data for record in found.records} == set(glue)
