"""Plain containers (`docker run --network ATTACHABLE_OVERLAY`), told from node to node. Pure.

Swarm's managers know nothing of them; only Docker's gossip carries their names to the nodes of a network. So
each node's sidecar tells the managers' of its own (`plain_containers`), always all of them; a manager keeps
the last word of each node (`Neighbours`) and lays what of it makes sense over its view of the cluster.

A node that says nothing for a while is without its sidecar (an update, a crash), and none of its containers
has ended for that: its last word stands until Swarm calls the node down or removes it, which is soon where
the node itself is lost. A container that ends meanwhile is named until the sidecar is back.
"""

import string
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from mesh.catalog.diff import changed
from mesh.catalog.model import Attachment, Container, Neighbour, Network
from mesh.catalog.snapshot import Change
from mesh.discovery.swarm import ClusterView

NEIGHBOURS_MAX = 16_384  # containers of all nodes together; more are refused
DOWN = "down"  # a node's state
SWARM = "swarm"  # a network's scope
REASONS = ("network", "address", "name", "excess")
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


@dataclass(frozen=True, slots=True)
class _Heard:
    said: Mapping[str, Neighbour]  # as it was said
    shown: Mapping[str, Neighbour] = field(default_factory=dict)  # by key: what of it makes sense


class Neighbours:
    """A manager's book of plain containers. `refused` counts what was not believed, by reason, once for each
    different report:

    `network`: none of the cluster's, or not yet (kept, in case it is listed late); `address`: not IPv4, or
    outside the network's subnets; `name`: none of DNS; `excess`: too many containers in all.
    """

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}  # by node
        self._up: frozenset[str] = frozenset()
        self._networks: Mapping[str, Network] = {}
        self.refused = Counter(dict.fromkeys(REASONS, 0))

    def begin(self, known: Mapping[str, Neighbour]) -> None:
        """This node is a manager from now on. What was known of the cluster stands until the nodes speak."""
        self._heard, self._up, self._networks = {}, frozenset(), {}
        said: dict[str, dict[str, Neighbour]] = {}
        for one in known.values():
            said.setdefault(one.node, {})[one.id] = one
        self._heard = {node: _Heard(own) for node, own in said.items()}

    def lay_over(self, view: ClusterView) -> ClusterView:
        """Swarm's new view, as it is to be told. Nodes that are gone or down are not believed any more."""
        self._up = frozenset(id_ for id_, node in view.nodes.items() if node.state != DOWN)
        self._heard = {node: heard for node, heard in self._heard.items() if node in self._up}
        moved = changed(self._networks, view.networks)
        if moved:
            self._networks = view.networks
            self._judge_again(moved.keys())
        shown = {key: one for heard in self._heard.values() for key, one in heard.shown.items()}
        return replace(view, neighbours=shown)

    def report(self, node: str, said: Mapping[str, Neighbour]) -> Change:
        """All plain containers of the node, by id; returns what that changes in the view."""
        before = self._heard.get(node, _Heard(_NOTHING))
        if node not in self._up or before.said == said:
            return Change()
        heard = _judged(node, said, _Subnets(self._networks), self._room_for(node), self.refused)
        self._heard[node] = heard
        return Change(neighbours=changed(before.shown, heard.shown))

    def _judge_again(self, networks: Collection[str]) -> None:
        """These have changed. What is refused has been counted when it was said."""
        subnets, uncounted = _Subnets(self._networks), Counter[str]()
        for node, heard in self._heard.items():
            if any(a.network in networks for one in heard.said.values() for a in one.attachments):
                self._heard[node] = _judged(node, heard.said, subnets, self._room_for(node), uncounted)

    def _room_for(self, node: str) -> int:
        return NEIGHBOURS_MAX - sum(len(heard.shown) for id_, heard in self._heard.items() if id_ != node)


def _judged(
    node: str, said: Mapping[str, Neighbour], subnets: "_Subnets", room: int, refused: Counter[str]
) -> _Heard:
    judged = (_believed(replace(one, node=node), subnets, refused) for one in said.values())
    shown = [one for one in judged if one.attachments]
    refused["excess"] += max(0, len(shown) - room)
    return _Heard(said, {one.key: one for one in shown[:room]})


class _Subnets:
    """Of the networks on which containers have names, each looked at once."""

    def __init__(self, networks: Mapping[str, Network]) -> None:
        self._networks = networks
        self._known: dict[str, tuple[IPv4Network, ...] | None] = {}

    def of(self, network: str) -> tuple[IPv4Network, ...] | None:
        """None: no such network, or none with names."""
        if network not in self._known:
            found = self._networks.get(network)
            named = found is not None and _offers_names(found)
            self._known[network] = tuple(_ip4_subnets(found)) if found is not None and named else None
        return self._known[network]


def _believed(one: Neighbour, subnets: _Subnets, refused: Counter[str]) -> Neighbour:
    if not is_dns_name(one.short_id):
        refused["name"] += 1
        return replace(one, attachments=())
    attachments = []
    for a in one.attachments:
        fault = _fault(a, subnets)
        if fault:
            refused[fault] += 1
            continue
        aliases = tuple(alias for alias in a.aliases if is_dns_name(alias))
        refused["name"] += len(a.aliases) - len(aliases)
        attachments.append(Attachment(a.network, a.address, aliases))
    named, hosted = is_dns_name(one.name), not one.hostname or is_dns_name(one.hostname)
    refused["name"] += (not named) + (not hosted)
    return replace(
        one,
        name=one.name if named else one.short_id,
        hostname=one.hostname if hosted else "",
        attachments=tuple(attachments),
    )


def _fault(attached: Attachment, subnets: _Subnets) -> str:
    known, address = subnets.of(attached.network), _ip4(attached.address)
    if known is None:
        return "network"
    fits = address is not None and (not known or any(address in one for one in known))
    return "" if fits else "address"


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
