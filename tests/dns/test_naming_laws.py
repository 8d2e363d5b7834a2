"""Laws of names over random worlds: dotted and equal names of networks, stacks that share names, links.

Every address here is on one network only, so an address tells where an answer comes from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Network,
    Port,
    Service,
    ServiceNetwork,
    TaskState,
)
from mesh.catalog.snapshot import Snapshot
from mesh.dns.lookup import HERE, LookupAnswer, LookupOutcome, answer
from mesh.dns.name_policy import DOCKERS, OURS, Elsewhere, NamePolicy, SharedAlias
from mesh.dns.name_table import NameTable
from mesh.dns.scope import Scope, scope_of
from mesh.dns.wire import DnsQuestion, QType
from tests.dns.world import snapshot, task

NETWORKS = (
    Network("n1", "front"),
    Network("n2", "front"),  # Docker allows an overlay and a local network of one name
    Network("n3", "shop.net", internal=True),
    Network("n4", "net", scope="local", driver="bridge"),
    Network("n5", "ingress", ingress=True),
)
LABELS = ("web", "Db", "a", "a.shop", "web.front", "net")  # `a.shop.net` is read in two ways
FEW = st.sampled_from(("web", "web", "Db", *LABELS))  # so that names are shared
STACKS = st.sampled_from(("blue", "blue", "red", ""))
STATES = st.sampled_from((TaskState.RUNNING, TaskState.RUNNING, *TaskState))
POLICIES = st.builds(
    NamePolicy,
    shared_alias=st.sampled_from(SharedAlias),
    empty_services=st.sampled_from(Elsewhere),
    other_types=st.sampled_from(Elsewhere),
    vip_ptr=st.booleans(),
    srv=st.booleans(),
)


def stack_label(stack: str) -> dict[str, str]:
    return {"com.docker.stack.namespace": stack} if stack else {}


@dataclass(frozen=True)
class World:
    snapshot: Snapshot

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", NameTable(self.snapshot))

    def ask(self, name: str, scope: Scope, policy: NamePolicy = OURS, qtype: int = QType.A) -> LookupAnswer:
        table: NameTable = self.table  # type: ignore[attr-defined]
        return answer(DnsQuestion(name, qtype, 1, b""), scope, table, policy)

    def scopes(self) -> Iterator[Scope]:
        return (scope_of(container, self.snapshot) for container in self.snapshot.containers.values())


@st.composite
def worlds(draw: st.DrawFn) -> World:
    services = [_service(draw, number) for number in range(draw(st.integers(1, 4)))]
    containers = [_container(draw, number) for number in range(draw(st.integers(1, 3)))]
    return World(snapshot(services, containers, NETWORKS))


def _service(draw: st.DrawFn, number: int) -> Service:
    name = draw(FEW)
    mode = draw(st.sampled_from(EndpointMode))
    on = draw(st.sets(st.sampled_from(NETWORKS), min_size=1))
    return Service(
        f"s{number}",
        name,
        mode,
        tuple(
            ServiceNetwork(
                n.id,
                None if mode is EndpointMode.DNSRR else f"10.{n.id[1:]}.{number}.2",
                tuple(draw(st.lists(FEW, max_size=2))),
            )
            for n in sorted(on, key=lambda n: n.id)
        ),
        (Port(80, 8080),),
        stack_label(draw(STACKS)),
        tuple(
            replace(
                task(f"{name}.{slot}.t{number}", NETWORKS[0], "10.1.0.0", draw(STATES)),
                addresses={n.id: f"10.{n.id[1:]}.{number}.{10 + slot}" for n in on},
            )
            for slot in range(draw(st.integers(0, 2)))
        ),
    )


def _container(draw: st.DrawFn, number: int) -> Container:
    links = st.dictionaries(FEW, FEW | st.just("box0"), max_size=1) if number else st.just(dict[str, str]())
    return Container(
        f"{number}{'c' * 63}",
        f"box{number}",
        "",
        tuple(
            Attachment(
                n.id,
                f"10.{n.id[1:]}.200.{number}",
                tuple(draw(st.lists(FEW, max_size=1))),
                links=tuple(draw(links).items()),
            )
            for n in sorted(draw(st.sets(st.sampled_from(NETWORKS), min_size=1)), key=lambda n: n.id)
        ),
        labels=stack_label(draw(STACKS)),
    )


def questions() -> Iterable[str]:
    plain = [*LABELS, "box0", "box1", "tasks.web", "TASKS.db", "web.1.t0", "0" + "c" * 11]
    for base, network in product(plain, ("", ".front", ".shop.net", ".net", ".Front.net")):
        yield base + network
        yield f"_http._tcp.{base}{network}"


def pointers() -> Iterable[str]:
    for network, owner, last in product(range(1, 6), (0, 1, 200), (0, 1, 2, 10, 11)):
        yield f"{last}.{owner}.{network}.10.in-addr.arpa"


def network_of(address: str) -> str:
    return f"n{address.split('.')[1]}"


@settings(deadline=None)
@given(worlds(), POLICIES)
def test_nobody_is_told_an_address_on_a_network_that_it_is_not_on(world: World, policy: NamePolicy) -> None:
    for scope in world.scopes():
        own = {id_ for id_, _ in scope.networks}
        for name in questions():
            for record in world.ask(name, scope, policy, QType.ANY).records:
                addresses = record.glue if record.qtype == QType.SRV else (record.data,)
                assert {network_of(address) for address in addresses} <= own
        for name in pointers():
            if world.ask(name, scope, policy, QType.PTR).outcome is not LookupOutcome.UNKNOWN:
                assert f"n{name.split('.')[2]}" in own


@settings(deadline=None)
@given(worlds(), POLICIES)
def test_nothing_is_told_twice(world: World, policy: NamePolicy) -> None:
    for scope, name in product(world.scopes(), questions()):
        told = [record.data for record in world.ask(name, scope, policy, QType.ANY).records]
        assert len(told) == len(set(told))


@settings(deadline=None)
@given(worlds(), POLICIES)
def test_every_target_is_a_name_for_its_asker(world: World, policy: NamePolicy) -> None:
    for scope in world.scopes():
        hidden = {alias.lower() for _, alias, _ in scope.links}
        for name in pointers():
            for record in world.ask(name, scope, policy, QType.PTR).records:
                target = record.data.removesuffix(".")
                if not any(target.lower().startswith(f"{alias}.") for alias in hidden):
                    found = world.ask(target, scope, policy)
                    # Its own stack's service of that name may have no task, and be looked for elsewhere.
                    forwarded = policy.empty_services is Elsewhere.FORWARD and found.matched
                    assert found.outcome in HERE or forwarded
        for name in questions():
            for record in world.ask(name, scope, policy, QType.SRV).records:
                found = world.ask(record.data.split(" ")[3].removesuffix("."), scope, policy)
                assert {r.data for r in found.records} == set(record.glue)


@settings(deadline=None)
@given(worlds())
def test_an_asker_of_a_stack_is_told_no_strangers_under_a_name_of_its_own_stack(world: World) -> None:
    owners = {
        address: service.stack
        for service in world.snapshot.services.values()
        for address in (
            *(n.vip for n in service.networks if n.vip),
            *(a for t in service.tasks for a in t.addresses.values()),
        )
    }
    for scope in world.scopes():
        if not scope.stack or scope.links:
            continue
        own_names = {
            label.lower()
            for service in world.snapshot.services.values()
            if service.stack == scope.stack
            for member in service.networks
            if member.network in dict(scope.networks)
            for label in (service.name, *member.aliases)
        }
        for name in own_names:
            found = world.ask(name, scope)
            assert found.outcome in HERE
            assert {owners.get(r.data, scope.stack) for r in found.records} <= {scope.stack}


# --- Docker's own algorithm, written down once more as it is told -------------------------------------------


def dockers(world: World, name: str, scope: Scope) -> set[str] | None:
    """libnetwork `sandbox.go` ResolveName and resolveName; None: unknown, forwarded."""
    labels = name.split(".")
    readings = [(name, "")] + [
        (".".join(labels[:cut]), ".".join(labels[cut:])) for cut in range(len(labels) - 1, 0, -1)
    ]
    for asked, network_name in readings:
        for as_alias in (True, False):
            for id_, own_name in scope.networks:
                if network_name.lower() not in ("", own_name.lower()):
                    continue
                links = {alias.lower(): target for n, alias, target in scope.links if n == id_}
                if as_alias == (asked.lower() in links):
                    wanted = links.get(asked.lower(), asked).lower()
                    if found := registered(world.snapshot, id_).get(wanted):
                        return found
    return None


def registered(world: Snapshot, network: str) -> dict[str, set[str]]:
    """What `service_common.go` and `network.go` enter for a network: name → addresses."""
    entered: dict[str, set[str]] = {}

    def enter(name: str, *addresses: str) -> None:
        if name:
            entered.setdefault(name.lower(), set()).update(addresses)

    for service in world.services.values():
        member = next((m for m in service.networks if m.network == network), None)
        enabled = [t for t in service.tasks if t.state is TaskState.RUNNING and network in t.addresses]
        if member is None or not enabled:
            continue
        for one in enabled:
            address = one.addresses[network]
            for name in (one.name, one.container[:12], one.hostname):
                enter(name, address)
            for label in (service.name, *member.aliases):
                enter(f"tasks.{label}", address)
                enter(label, member.vip or address)
    for container in world.containers.values():
        for attached in container.attachments:
            if attached.network == network:
                for name in (container.name, *attached.aliases, container.id[:12], container.hostname):
                    enter(name, attached.address)
    return entered


@settings(deadline=None)
@given(worlds())
def test_with_dockers_policy_a_name_means_what_it_means_to_docker(world: World) -> None:
    for scope in world.scopes():
        for name in questions():
            if not name.startswith("_"):
                found = world.ask(name, scope, DOCKERS)
                told = {r.data for r in found.records} if found.outcome in HERE else None
                assert told == dockers(world, name, scope), name
