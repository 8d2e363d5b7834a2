"""Plain containers (`docker run --network ATTACHABLE_OVERLAY`), told from node to node. Pure.

Swarm's managers know nothing of them; only Docker's gossip carries their names to the nodes of a network. So
each node's sidecar tells the managers' of its own (`plain_containers`), always all of them; a manager keeps
the last word of each node (`Neighbours`) and lays what of it makes sense over its view of the cluster.

A node that says nothing for a while is without its sidecar (an update, a crash), and none of its containers
has ended for that: its last word stands until Swarm calls the node down or removes it, which is soon where
the node itself is lost. A container that ends meanwhile is named until the sidecar is back.

A node may name its containers, and nothing of anybody else's: neither a name that a service, an alias or a
task has, on whichever network, nor one of their addresses. Whoever came first, the service has it.
"""

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.diff import changed
from mesh.catalog.entries import gateways_of, is_host_address
from mesh.catalog.model import Attachment, Container, Neighbour, Network, Node
from mesh.catalog.snapshot import Change
from mesh.discovery.allocations import Allocations
from mesh.discovery.service_claims import HeldNames, ServiceClaims, is_reserved
from mesh.errors import Problem

NEIGHBOURS_MAX = 16_384  # containers of all nodes together; more are refused
DOWN = "down"  # a node's state
SWARM = "swarm"  # a network's scope
REASONS = ("network", "address", "name", "service", "reserved", "excess")
SHOWN_MAX = 3  # faults of one node that are named
LABEL_MAX, NAME_MAX = 63, 253  # octets (RFC 1035 2.3.4)

_LETTERS = frozenset(string.ascii_letters + string.digits + "-_")
_NOTHING: Mapping[str, Neighbour] = {}


# --- on the node --------------------------------------------------------------------------------------------


def plain_containers(
    containers: Iterable[Container], networks: Mapping[str, Network]
) -> Mapping[str, Neighbour]:
    """Those of this node that others need to know, by id. Docker gossips IPv4 alone."""
    told = (_told(one, networks) for one in containers if not one.service and one.running)
    return {one.id: one for one in told if one.attachments}


def _told(container: Container, networks: Mapping[str, Network]) -> Neighbour:
    attachments = tuple(
        Attachment(a.network, a.address, tuple(filter(is_dns_name, a.aliases)))
        for a in container.attachments
        if _offers_names(networks.get(a.network)) and _ip4(a.address)
    )
    hostname = container.hostname if is_dns_name(container.hostname) else ""
    name = container.name if is_dns_name(container.name) else container.short_id
    stack = container.stack if len(container.stack) <= NAME_MAX else ""
    return Neighbour("", container.id, name, attachments, hostname, stack)


# --- on managers --------------------------------------------------------------------------------------------

Fault = tuple[str, str, str]  # container's id, reason, what it is about


@dataclass(frozen=True, slots=True)
class _HeardContainers:
    said: Mapping[str, Neighbour]  # as it was said
    names: frozenset[str] = frozenset()  # all that are said, lower case
    places: frozenset[tuple[str, str]] = frozenset()  # (network, address)
    shown: Mapping[str, Neighbour] = field(default_factory=dict)  # by key: what of it is believed
    faults: frozenset[Fault] = frozenset()  # that are counted
    unproven: bool = False  # the node may have something on a network since the last look


class Neighbours:
    """A manager's book of plain containers. `refused` counts what was not believed, by reason, each once as
    long as it is said:

    `network`: none of the cluster's, not attachable, none on which the node has anything, or not yet (kept,
    in case it is listed late); `address`: not IPv4, outside the network's subnets, or somebody else's;
    `name`: none of DNS; `service`: a service, an alias or a task has this name; `reserved`: a name that no
    container can have (`service_claims.is_reserved`); `excess`: too many containers in all.
    """

    def __init__(self) -> None:
        self._heard: dict[str, _HeardContainers] = {}  # by node
        self._nodes: Mapping[str, Node] = {}
        self._up: frozenset[str] = frozenset()
        self._networks: Mapping[str, Network] = {}
        self._services = ServiceClaims()
        self._known: Allocations | None = None
        self._judge = _Judge({}, self._services, None)
        self.refused = Counter(dict.fromkeys(REASONS, 0))

    @property
    def unproven(self) -> bool:
        """Would another look at what the engine has given out help?"""
        return any(heard.unproven for heard in self._heard.values())

    def begin(self, known: Mapping[str, Neighbour]) -> None:
        """This node is a manager from now on. What was known of the cluster stands until the nodes speak."""
        self._heard, self._up, self._networks, self._known = {}, frozenset(), {}, None
        said: dict[str, dict[str, Neighbour]] = {}
        for one in known.values():
            said.setdefault(one.node, {})[one.id] = one
        self._heard = {node: _heard(own) for node, own in said.items()}

    def lay_over(self, view: ClusterView, known: Allocations | None = None) -> ClusterView:
        """Swarm's new view, as it is to be told. Nodes that are gone or down are not believed any more.

        `known`: what else the engine has given out; None: as before.
        """
        self._nodes = view.nodes
        self._up = frozenset(id_ for id_, node in view.nodes.items() if node.state != DOWN)
        self._heard = {node: heard for node, heard in self._heard.items() if node in self._up}
        touched = self._services.follow(view.services)
        everything = bool(changed(self._networks, view.networks)) or _moved(self._known, known)
        self._networks, self._known = view.networks, known or self._known
        self._judge = _Judge(self._networks, self._services, self._known)
        for node, heard in self._heard.items():
            if everything or heard.unproven or _concerns(touched, node, heard):
                self._heard[node] = self._judged(node, heard, surely=known is not None)
        shown = {key: one for heard in self._heard.values() for key, one in heard.shown.items()}
        return replace(view, neighbours=shown)

    def report(self, node: str, said: Mapping[str, Neighbour]) -> Change:
        """All plain containers of the node, by id; returns what that changes in the view."""
        before = self._heard.get(node, _HeardContainers(_NOTHING))
        if node not in self._up or before.said == said:
            return Change()
        heard = self._judged(node, replace(_heard(said), faults=before.faults), surely=False)
        self._heard[node] = heard
        return Change(neighbours=changed(before.shown, heard.shown))

    def problems(self) -> Iterator[Problem]:
        """What is said now and not believed, and whose it is."""
        for node, heard in sorted(self._heard.items()):
            name = self._nodes[node].name if node in self._nodes else node
            for id_, reason, what in sorted(heard.faults)[:SHOWN_MAX]:
                message = f"{_WHY[reason].format(what[:NAME_MAX])}; refused"
                yield Problem(f"node {name or node}", f"plain container {id_[:12]}", message)
            if (more := len(heard.faults) - SHOWN_MAX) > 0:
                yield Problem(f"node {name or node}", "plain containers", f"{more} more are refused")

    def _judged(self, node: str, heard: _HeardContainers, *, surely: bool) -> _HeardContainers:
        """`surely`: the last look at what the engine has given out is later than what was said."""
        found, faults = self._judge.believed(node, heard.said)
        room = NEIGHBOURS_MAX - sum(len(one.shown) for id_, one in self._heard.items() if id_ != node)
        faults |= {(one.id, "excess", "") for one in found[max(0, room) :]}
        unproven = {one for one in faults if one[1] == UNPROVEN}
        faults -= unproven
        if surely:
            faults |= {(id_, "network", what) for id_, _, what in unproven}
        for _, reason, _ in faults - heard.faults:
            self.refused[reason] += 1
        shown = {one.key: one for one in found[: max(0, room)]}
        still = bool(unproven) and not surely
        return replace(heard, shown=shown, faults=frozenset(faults), unproven=still)


UNPROVEN = "unproven"  # a network on which the node has nothing, as of the last look
_WHY = {
    "network": "network {} is none that containers of this node can be on",
    "address": "address {} can't be its own",
    "name": "{!r} is no name of DNS",
    "service": "the name {!r} is a service's",
    "reserved": "the name {!r} can't be a container's",
    "excess": "there are too many plain containers in all{}",
}


def _heard(said: Mapping[str, Neighbour]) -> _HeardContainers:
    names: set[str] = set()
    places: set[tuple[str, str]] = set()
    for one in said.values():
        names.update((one.name.lower(), one.hostname.lower(), one.short_id.lower()))
        for a in one.attachments:
            names.update(map(str.lower, a.aliases))
            places.add((a.network, a.address))
    return _HeardContainers(said, frozenset(names), frozenset(places))


def _concerns(touched: HeldNames, node: str, heard: _HeardContainers) -> bool:
    return (
        not touched.names.isdisjoint(heard.names)
        or not touched.places.isdisjoint(heard.places)
        or any(id_ == node for id_, _ in touched.nodes)
    )


def _moved(before: Allocations | None, now: Allocations | None) -> bool:
    if now is None:
        return False
    before = before or Allocations()
    return (before.attached, before.owners, before.gateways) != (now.attached, now.owners, now.gateways)


class _Judge:
    """Holds what nodes say against what Swarm knows. Networks are looked at once each."""

    def __init__(
        self, networks: Mapping[str, Network], services: ServiceClaims, known: Allocations | None
    ) -> None:
        self._networks = networks
        self._names = frozenset(one.name.lower() for one in networks.values())
        self._services = services
        self._known = known
        self._subnets: dict[str, tuple[tuple[IPv4Network, ...], frozenset[str]] | None] = {}

    def believed(self, node: str, said: Mapping[str, Neighbour]) -> tuple[list[Neighbour], set[Fault]]:
        """Those of which something is believed, as much as is, and what is not."""
        faults: set[Fault] = set()
        judged = (self._container(replace(one, node=node), faults) for one in said.values())
        return [one for one in judged if one.attachments], faults

    def _container(self, one: Neighbour, faults: set[Fault]) -> Neighbour:
        if not self._may_be_called(one.id, one.short_id, faults):
            return replace(one, attachments=())
        attachments = []
        for a in one.attachments:
            reason, what = self._attachment_fault(one.node, a)
            if reason:
                faults.add((one.id, reason, what))
                continue
            aliases = tuple(alias for alias in a.aliases if self._may_be_called(one.id, alias, faults))
            attachments.append(Attachment(a.network, a.address, aliases))
        named = self._may_be_called(one.id, one.name, faults)
        hosted = not one.hostname or self._may_be_called(one.id, one.hostname, faults)
        return replace(
            one,
            name=one.name if named else one.short_id,
            hostname=one.hostname if hosted else "",
            attachments=tuple(attachments),
        )

    def _may_be_called(self, id_: str, name: str, faults: set[Fault]) -> bool:
        if not is_dns_name(name):
            faults.add((id_, "name", name))
        elif self._services.has_name(name):
            faults.add((id_, "service", name))
        elif is_reserved(name, self._names):
            faults.add((id_, "reserved", name))
        else:
            return True
        return False

    def _attachment_fault(self, node: str, attached: Attachment) -> tuple[str, str]:
        """(reason, what it is about); ("", "") for none."""
        network, address = attached.network, attached.address
        known = self._looked_at(network)
        if known is None:
            return "network", network
        subnets, gateways = known
        here = self._known is None or self._services.is_on(node, network)
        if not here and self._known is not None and network not in self._known.attached.get(node, ()):
            return UNPROVEN, self._networks[network].name
        owner = self._known.owners.get((network, address), node) if self._known is not None else node
        if (
            not is_host_address(address, subnets or None)
            or address in gateways
            or owner != node
            or self._services.has_address(network, address)
        ):
            return "address", address
        return "", ""

    def _looked_at(self, network: str) -> tuple[tuple[IPv4Network, ...], frozenset[str]] | None:
        """Its subnets and gateways; None: no such network, or none that a plain container can be on."""
        if network not in self._subnets:
            found = self._networks.get(network)
            if found is None or not _offers_names(found) or not found.attachable:
                self._subnets[network] = None
            else:
                given = self._known.gateways.get(network) if self._known is not None else None
                gateways = given or frozenset(gateways_of(found.subnets))
                self._subnets[network] = tuple(_ip4_subnets(found)), gateways
        return self._subnets[network]


def _offers_names(network: Network | None) -> bool:
    return network is not None and network.scope == SWARM and not network.ingress


def _ip4(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _ip4_subnets(network: Network) -> Iterator[IPv4Network]:
    for text in network.subnets:
        try:
            yield IPv4Network(text, strict=False)
        except ValueError:
            continue  # IPv6


def is_dns_name(text: str) -> bool:
    """Letters, digits, hyphens and the underscores that Docker allows, in labels that DNS can hold."""
    labels = text.split(".")
    fit = (0 < len(one) <= LABEL_MAX and _LETTERS.issuperset(one) for one in labels)
    return len(text) <= NAME_MAX and all(fit)
