"""What the kernel is told, computed from the catalogue: whole tables as nftables text, and changes of them as
transactions. Pure; equal input gives equal output.

One table `mesh` (family ip) per namespace. Work per packet does not grow with the cluster: only a flow's
first packet meets the NAT chains, a map leads it to the chain of its virtual IP or port in one look-up, and
that chain holds one rule. A change of one service touches that service's chain and map element only.

    container   DNS redirect (fails open), virtual IP → one of the tasks, refusal where there is no task
    host        published port → the ingress namespace, or → a local relay
    ingress     published port → one of the tasks' ingress addresses

All hooks stand one before Docker's (nat -101 against -100): the first chain that decides a flow wins, and
when ours does not match, Docker's rules are what they were.

`ipvs` says whether this kernel has Docker's own load balancing to fall back on. If so every redirect is gated
by the `alive` set (see `mesh.kernel.heartbeat`); if not, only DNS is, and the last known tasks stay served.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from mesh.balance.hash_slots import NOBODY, Choice, choice, nearest
from mesh.balance.policies import Policy
from mesh.catalog.model import Container, EndpointMode, Protocol, Service
from mesh.catalog.snapshot import Snapshot
from mesh.kernel.counters import DECLARED, counting_chains, counting_update, listing
from mesh.kernel.netfilter.transaction import (
    NO_WAY,
    Add,
    Delete,
    Drawn,
    Elements,
    Empty,
    Lead,
    Operation,
    OperationKind,
    Put,
    SetOperation,
    Take,
    Transaction,
    What,
    as_text,
)
from mesh.kernel.return_rules import MASQUERADED
from mesh.labels.vips import Locality, vip_plan

TABLE = "mesh"
ALIVE_SET = "alive"
ALIVE_SECONDS = 3
# The gate is keyed by transport, a key every packet has: one set serves DNS, virtual IPs and ports alike.
ALIVE_PROTOCOLS = ("icmp", "tcp", "udp", "sctp")
DOCKER_RESOLVER = "127.0.0.11"

NAT_BEFORE_DOCKER = -101
SOURCE_NAT_BEFORE_DOCKER = 99
BEFORE_TRACKING = -300

DELETE = f"add table ip {TABLE}\ndelete table ip {TABLE}\n"  # succeeds whether the table is there or not
LIST_COUNTERS = listing(TABLE)
NOT_ALIVE = f"flush set ip {TABLE} {ALIVE_SET}\n"  # gated rules match no more, from now on

# Whose elements change while a table is loaded, as they are declared below.
ALIVE = Elements(TABLE, ALIVE_SET, OperationKind.PROTOCOL)
_VIPS = Elements(TABLE, "vips", OperationKind.ADDRESS, OperationKind.VERDICT)
_EMPTY = Elements(TABLE, "empty", OperationKind.ADDRESS)
_TO_SANDBOX = {name: Elements(TABLE, name, OperationKind.PROTOCOL_PORT) for name in ("published", "relayed")}
_REDIRECTED = Elements(TABLE, "redirected", OperationKind.PORT, OperationKind.PORT)
_PORTS = Elements(TABLE, "ports", OperationKind.PROTOCOL_PORT, OperationKind.VERDICT)
_KEPT = Elements(TABLE, "kept", OperationKind.ADDRESS)

Vips = Mapping[str, Choice]  # virtual IP → which of the tasks behind it


@dataclass(frozen=True, slots=True)
class DnsPorts:
    """Where on 127.0.0.11 a resolver listens."""

    udp: int
    tcp: int


@dataclass(frozen=True, slots=True)
class PortTarget:
    """A published port carried by the kernel."""

    published: int
    protocol: Protocol
    target: int  # the port at the tasks' addresses
    choice: Choice = NOBODY  # which task, by its address on the ingress network
    masqueraded: bool = False  # never with the client's own address, whatever the tasks can do
    relayed: bool = False  # by the sidecar, while it lives; else by the kernel

    @property
    def chain(self) -> str:
        return f"{self.protocol}_{self.published}"

    @property
    def element(self) -> str:
        return f"{self.protocol} . {self.published}"


Ports = Mapping[str, PortTarget]  # "80/tcp" → what it leads to


# --- containers ---------------------------------------------------------------------------------------------


def service_vips(container: Container, service: Service | None, this_node: str = "") -> dict[str, Choice]:
    """The service's virtual IPs on networks that the container is on too, and on no others."""
    if service is None or service.mode is not EndpointMode.VIP or not service.enabled:
        return {}
    attached = {attachment.network for attachment in container.attachments}
    way = vip_plan(service)
    return {
        member.vip: service_choice(service, member.network, way.policy, way.locality, this_node)
        for member in service.networks
        if member.vip is not None and _is_v4(member.vip) and member.network in attached
    }


def container_vips(container: Container, snapshot: Snapshot) -> dict[str, dict[str, Choice]]:
    """Service id → its virtual IPs, for every service that the container can reach."""
    reachable = {
        service.id: service
        for attachment in container.attachments
        for service in snapshot.services_on(attachment.network)
    }
    found = (
        (id_, service_vips(container, service, snapshot.this_node)) for id_, service in reachable.items()
    )
    return {id_: vips for id_, vips in found if vips}


def container_rules(vips: Vips, dns: DnsPorts | None, ipvs: bool = False) -> str:
    """The container's whole table, replacing what was there in one transaction."""
    gate = _gate(ipvs)
    return _table(
        f"  map vips {{ typeof ip daddr : verdict; }}\n"
        f"  set empty {{ typeof ip daddr; }}\n"
        f"  chain output {{\n"
        f"    type nat hook output priority {NAT_BEFORE_DOCKER}; policy accept;\n"
        f"{_dns_redirects(dns)}"
        f"    {gate}ip daddr vmap @vips\n"
        f"  }}\n"
        f"  chain refuse {{\n"
        f"    type filter hook output priority 0; policy accept;\n"
        f"    {gate}ip daddr @empty jump refusal\n"
        f"  }}\n"
        f"{_REFUSAL}"
    ) + as_text(vips_update({}, vips))


def vips_update(before: Vips, after: Vips) -> Transaction:
    """The transaction that turns one set of virtual IPs into another; () when they are the same."""
    removed = [_without_vip(vip, before[vip]) for vip in _sorted(before) if vip not in after]
    changed = [
        _vip_change(vip, before.get(vip), after[vip])
        for vip in _sorted(after)
        if before.get(vip) != after[vip]
    ]
    return tuple(operation for one in removed + changed for operation in one)


def task_addresses(service: Service, network: str) -> tuple[str, ...]:
    """Where the service's serving tasks are on the network, in numeric order."""
    addresses = {task.addresses.get(network, "") for task in service.serving()}
    return _sorted(filter(_is_v4, addresses))


def service_choice(
    service: Service, network: str, policy: Policy, locality: Locality = Locality.ANY, this_node: str = ""
) -> Choice:
    """Which of the service's serving tasks on the network."""
    addresses: Sequence[str] = task_addresses(service, network)
    if locality is Locality.NODE:
        own = {task.addresses.get(network, "") for task in service.serving() if task.node == this_node}
        addresses = nearest(addresses, own)
    return choice(policy, addresses)


def _dns_redirects(dns: DnsPorts | None) -> str:
    if dns is None:
        return ""
    return "".join(
        f"    {_gate(True)}ip daddr {DOCKER_RESOLVER} {protocol} dport 53 dnat to {DOCKER_RESOLVER}:{port}\n"
        for protocol, port in (("udp", dns.udp), ("tcp", dns.tcp))
    )


def _vip_chain(vip: str) -> str:
    return "vip_" + vip.replace(".", "_")


def _vip_change(vip: str, before: Choice | None, after: Choice) -> Transaction:
    chain = _vip_chain(vip)
    if not after.slots:
        gone = _without_vip(vip, before) if before is not None and before.slots else ()
        return *gone, Put(_EMPTY, ((vip, ""),))
    if before is not None and before.slots:
        return _chain_change(chain, before, after)
    freed = (Take(_EMPTY, (vip,)),) if before is not None else ()
    return *freed, *_new_chain(chain, after), Put(_VIPS, ((vip, f"goto {chain}"),))


def _without_vip(vip: str, before: Choice) -> Transaction:
    if not before.slots:
        return (Take(_EMPTY, (vip,)),)
    return Take(_VIPS, (vip,)), *_without_chain(_vip_chain(vip), before)


# --- host ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostPath:
    """How the host reaches the ingress namespace."""

    sandbox: str  # address of ingress_sbox on docker_gwbridge
    bridge: str = "docker_gwbridge"
    subnet: str = "172.18.0.0/16"  # of the bridge


def host_rules(
    path: HostPath,
    ports: Ports,
    redirected: Mapping[int, int],
    ipvs: bool = False,
    relay_zone: int | None = None,
) -> str:
    """The host's table. `ports` are led to the ingress namespace, relayed ones only when nobody is alive to
    relay them (with IPVS Docker has them then); `redirected`: TCP ports led to a relay on another local port,
    because Docker's own socket holds the real one. With IPVS no UDP port is relayed. `relay_zone`:
    conntrack zone of datagrams to and from the relay; None: they are not tracked."""
    gate = _gate(ipvs)
    orphaned = "" if ipvs else f"    ip protocol != @{ALIVE_SET} {_LED} @relayed dnat to {path.sandbox}\n"
    aside = "notrack" if relay_zone is None else f"ct zone set {relay_zone}"
    untracked = "" if ipvs else _ASIDE.format(aside=aside)
    to_sandbox = f'oifname "{path.bridge}" ip daddr {path.sandbox} ct status dnat'
    return _table(
        f"  set published {{ typeof ip protocol . th dport; }}\n"
        f"  set relayed {{ typeof ip protocol . th dport; }}\n"
        f"  map redirected {{ typeof tcp dport : tcp dport; }}\n"
        f"  chain prerouting {{\n"
        f"    type nat hook prerouting priority {NAT_BEFORE_DOCKER}; policy accept;\n"
        f"    {gate}fib daddr type local jump lead\n"
        f"  }}\n"
        f"  chain output {{\n"
        f"    type nat hook output priority {NAT_BEFORE_DOCKER}; policy accept;\n"
        f"    {gate}fib daddr type local jump lead\n"
        f"  }}\n"
        f"  chain lead {{\n"
        f"    {_LED} @published dnat to {path.sandbox}\n"
        f"{orphaned}"
        f"    ip protocol tcp redirect to :tcp dport map @redirected\n"
        f"  }}\n"
        f"{untracked}"
        # Replies must come back through us: to the host's own connections (127.0.0.1 too), and to containers
        # on the same bridge, which the ingress namespace would otherwise answer directly.
        f"  chain postrouting {{\n"
        f"    type nat hook postrouting priority {SOURCE_NAT_BEFORE_DOCKER}; policy accept;\n"
        f"    {to_sandbox} fib saddr type local masquerade\n"
        f"    {to_sandbox} ip saddr {path.subnet} masquerade\n"
        f"  }}\n"
    ) + as_text(host_update({}, ports, {}, redirected))


def host_update(
    ports_before: Ports,
    ports: Ports,
    redirected_before: Mapping[int, int],
    redirected: Mapping[int, int],
) -> Transaction:
    """The transaction between two states of the host's ports; () when they are the same."""
    before, after = _led(ports_before), _led(ports)
    changes: list[Operation] = [
        Take(_TO_SANDBOX[where], (element,)) for where, element in sorted(before - after)
    ]
    changes += [Put(_TO_SANDBOX[where], ((element, ""),)) for where, element in sorted(after - before)]
    for port in sorted(redirected_before.keys() | redirected.keys()):
        old, new = redirected_before.get(port), redirected.get(port)
        if old is not None and old != new:
            changes.append(Take(_REDIRECTED, (str(port),)))
        if new is not None and old != new:
            changes.append(Put(_REDIRECTED, ((str(port), str(new)),)))
    return tuple(changes)


_LED = "ip protocol . th dport"

# Datagrams to the relay are tracked aside from all others: conntrack would keep a client that goes on sending
# with the relay for as long as it does, although nobody is there any more. In a zone of their own they are a
# new flow as soon as nobody is alive, and meet the rules as they are then. What the relay answers belongs to
# the same zone, dying or not. The operator's rules see a state and an original port, as with any other flow.
# A kernel that has no zones does not track them at all. (Fragments are whole by then: conntrack's
# defragmentation has priority -400.)
RELAY_ZONE = 0x6D65
_ASIDE = f"""\
  chain datagrams {{{{
    type filter hook prerouting priority {BEFORE_TRACKING}; policy accept;
    ip protocol udp ip protocol @{ALIVE_SET} {_LED} @relayed fib daddr type local {{aside}}
  }}}}
  chain datagrams_output {{{{
    type filter hook output priority {BEFORE_TRACKING}; policy accept;
    ip protocol udp ip protocol @{ALIVE_SET} {_LED} @relayed fib daddr type local {{aside}}
    ip protocol udp ip protocol . th sport @relayed {{aside}}
  }}}}
"""


def _led(ports: Ports) -> set[tuple[str, str]]:
    return {("relayed" if one.relayed else "published", one.element) for one in ports.values()}


# --- ingress namespace --------------------------------------------------------------------------------------


def ingress_rules(
    ports: Ports, sandbox: str, interface: str, ipvs: bool = False, kept: Collection[str] = ()
) -> str:
    """The ingress namespace's table. `sandbox`: its address on docker_gwbridge, `interface`: its ingress one.
    `kept`: addresses of tasks that are sent the client's own address, because they answer through us.

    A port without a serving task has no map element: the packet stays local, where nobody listens (or
    Docker's IPVS does), so the client is refused at once. Docker's mangle mark (priority -150) is already set
    when we decide; it only matters to IPVS at local input, which a packet for a task's address never reaches.
    """
    return _table(
        f"  map ports {{ typeof ip protocol . th dport : verdict; }}\n"
        f"  set kept {{ typeof ip daddr; }}\n"
        f"{DECLARED}"
        f"  chain prerouting {{\n"
        f"    type nat hook prerouting priority {NAT_BEFORE_DOCKER}; policy accept;\n"
        f"    ip daddr {sandbox} {_LED} @begun\n"
        f"    {_gate(ipvs)}ip daddr {sandbox} {_LED} vmap @ports\n"
        f"    ip daddr {sandbox} {_LED} @refused\n"
        f"  }}\n"
        f"  chain postrouting {{\n"
        f"    type nat hook postrouting priority {SOURCE_NAT_BEFORE_DOCKER}; policy accept;\n"
        f'    oifname "{interface}" ct status dnat ct mark {MASQUERADED:#x} masquerade\n'
        f'    oifname "{interface}" ct status dnat ip daddr != @kept masquerade\n'
        f"  }}\n"
        f"{counting_chains(sandbox)}"
    ) + as_text(ingress_update({}, ports, (), kept))


def ingress_update(
    before: Ports, after: Ports, kept_before: Collection[str] = (), kept: Collection[str] = ()
) -> Transaction:
    """The transaction between two states of the ports; () when they are the same."""
    keys = sorted(before.keys() | after.keys())
    changes: list[Operation] = [*counting_update(TABLE, before, after)]
    for key in keys:
        if before.get(key) != after.get(key):
            changes += _port_change(before.get(key), after.get(key))
    gone, new = (_sorted(set(a) - set(b)) for a, b in ((kept_before, kept), (kept, kept_before)))
    if gone:
        changes.append(Take(_KEPT, gone))
    if new:
        changes.append(Put(_KEPT, tuple((address, "") for address in new)))
    return tuple(changes)


def _port_change(before: PortTarget | None, after: PortTarget | None) -> Transaction:
    had = before if before is not None and before.choice.slots else None
    has = after if after is not None and after.choice.slots else None
    if has is None:
        if had is None:
            return ()
        return Take(_PORTS, (had.element,)), *_without_chain(had.chain, had.choice)
    if had is None:
        led_to = Put(_PORTS, ((has.element, f"goto {has.chain}"),))
        return *_new_chain(has.chain, has.choice, _way(has)), led_to
    return _chain_change(has.chain, had.choice, has.choice, _way(has), anew=_way(had) != _way(has))


def _way(target: PortTarget) -> SetOperation:
    return SetOperation(str(target.protocol), MASQUERADED if target.masqueraded else None, target.target)


# --- common -------------------------------------------------------------------------------------------------

_REFUSAL = (
    "  chain refusal {\n"
    "    ip protocol tcp reject with tcp reset\n"
    "    reject with icmp type port-unreachable\n"
    "  }\n"
)


def _table(body: str) -> str:
    """A whole table in place of any older one, alive from its first moment."""
    elements = ", ".join(ALIVE_PROTOCOLS)
    return (
        f"{DELETE}table ip {TABLE} {{\n"
        f"  set {ALIVE_SET} {{ typeof ip protocol; flags timeout; timeout {ALIVE_SECONDS}s; }}\n"
        f"{body}}}\n"
        f"add element ip {TABLE} {ALIVE_SET} {{ {elements} }}\n"
    )


def _gate(gated: bool) -> str:
    return f"ip protocol @{ALIVE_SET} " if gated else ""


# A chain with one rule, and where there is more than one slot a map of the chain's name: slot → address. (Not
# an anonymous map: nft up to 1.1.1 crashes when it lists one that a newer libnftables has loaded; for the
# same reason sets and maps are declared by `typeof` throughout.)


def _new_chain(name: str, choice: Choice, way: SetOperation = NO_WAY) -> Transaction:
    return Add(What.CHAIN, TABLE, name), *_filled(name, choice, way)


def _filled(name: str, choice: Choice, way: SetOperation) -> Transaction:
    """The rule of an empty chain, and its map."""
    if len(choice.slots) == 1:
        return (Lead(TABLE, name, choice.slots[0], way),)
    drawn = Drawn(choice.draw, len(choice.slots), name)
    return (
        Add(What.SLOTS, TABLE, name),
        _put_slots(name, enumerate(choice.slots)),
        Lead(TABLE, name, drawn, way),
    )


def _chain_change(
    name: str, before: Choice, after: Choice, way: SetOperation = NO_WAY, *, anew: bool = False
) -> Transaction:
    """Only the slots that changed where rule and number of slots are the same. Replacing the map drops its
    counter, so that is also kinder to the turn."""
    if anew or (len(before.slots), before.draw) != (len(after.slots), after.draw) or len(after.slots) == 1:
        return *_emptied(name, before), *_filled(name, after, way)
    pairs = zip(before.slots, after.slots, strict=True)
    changed = [(index, new) for index, (old, new) in enumerate(pairs) if old != new]
    if not changed:
        return ()
    return Take(_slots(name), tuple(str(index) for index, _ in changed)), _put_slots(name, changed)


def _emptied(name: str, choice: Choice) -> Transaction:
    gone = (Delete(What.SLOTS, TABLE, name),) if len(choice.slots) > 1 else ()
    return Empty(TABLE, name), *gone


def _without_chain(name: str, choice: Choice) -> Transaction:
    """For a chain that nothing leads to any more."""
    return *_emptied(name, choice), Delete(What.CHAIN, TABLE, name)


def _slots(name: str) -> Elements:
    return Elements(TABLE, name, OperationKind.SLOT, OperationKind.ADDRESS)


def _put_slots(name: str, numbered: Iterable[tuple[int, str]]) -> Put:
    return Put(_slots(name), tuple((str(index), address) for index, address in numbered))


def _is_v4(address: str) -> bool:
    """What Docker gives tasks and VIPs; anything else must not reach a rule's text."""
    try:
        IPv4Address(address)
    except ValueError:
        return False
    return True


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(addresses, key=lambda address: int(IPv4Address(address))))
