"""An asker's view: the networks it is on, in the order in which Docker would look names up on them, and what
else decides its answers: its stack, and the `--link` aliases that are its alone.

Scoping is a security property: a name on a network that is not in the scope does not exist for the asker.
The order is libnetwork's (`sandbox.go` Endpoint.Less, then `endpoint.go` ByNetworkType): overlays of the
Swarm before local networks, and among each gateway priority, non-internal before internal, with a gateway
before without, then by name. Names are never merged across networks: the first that knows one answers.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from mesh.catalog.model import Asker, Attachment, Container, Network
from mesh.catalog.snapshot import Snapshot
from mesh.dns.names import named

ScopeKey: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """`networks` are (id, name); `links`: (network id, alias, name that it stands for). `external`: may ask
    the world outside. `servers`: its own `--dns`. `ndots`: its stub resolver searches for short names."""

    networks: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str, str], ...] = ()
    stack: str = ""
    container: str = ""
    external: bool = True
    servers: tuple[str, ...] = ()
    ndots: bool = False

    @property
    def key(self) -> ScopeKey:
        """Scopes with equal keys get equal answers, so they share their cached replies.

        The stack always counts, though it matters only where stacks share a name: which names they are
        changes with the catalogue, a key must not. It parts few: mostly a stack's tasks are the only ones on
        just their networks. A container's own servers are reached from inside it, so theirs are shared with
        nobody.
        """
        own = self.container if self.servers else ""
        return (self.networks, self.links, self.stack, self.external, self.ndots, own)

    def linked(self, network: str, name: str) -> str | None:
        """The name that the link alias stands for on the network (by id), None where it is no alias.

        Docker wants upper and lower case exact. Here the exact spelling comes first, then any other.
        """
        own = [(alias, target) for id_, alias, target in self.links if id_ == network]
        exact = (target for alias, target in own if alias == name)
        folded = (target for alias, target in own if alias.lower() == name.lower())
        return next(exact, None) or next(folded, None)


def scope_of(container: Container, snapshot: Snapshot) -> Scope:
    """What a container of this node may know."""
    attached = [
        (attachment, network)
        for attachment in container.attachments
        if (network := snapshot.networks.get(attachment.network)) is not None
    ]
    seen = sorted((pair for pair in attached if named(pair[1])), key=_docker_order)
    return Scope(
        networks=tuple((network.id, network.name) for _, network in seen),
        links=tuple((network.id, *link) for attachment, network in seen for link in attachment.links),
        stack=container.stack,
        container=container.id,
        # Docker (since 26.0, CVE-2024-29018) forwards nothing for a container on internal networks only.
        external=not attached or any(not network.internal for _, network in attached),
        servers=container.dns,
        ndots=container.ndots,
    )


def _docker_order(pair: tuple[Attachment, Network]) -> tuple[bool, int, bool, int, str]:
    attachment, network = pair
    gateways = attachment.gateway + (attachment.gateway and bool(attachment.address6))
    return (network.scope != "swarm", -attachment.priority, network.internal, -gateways, network.name)


def scope_of_asker(asker: Asker, snapshot: Snapshot) -> Scope:
    """What an asker of the file source may know: its networks in the order in which the file lists them."""
    known = [n for id_ in asker.networks if (n := snapshot.networks.get(id_)) is not None]
    return Scope(
        networks=tuple((network.id, network.name) for network in known if named(network)),
        stack=asker.stack,
        external=not known or any(not network.internal for network in known),
    )


class SourceScopes:
    """Who asks, by source address, for endpoints that are not inside a container's namespace.

    A container is known by its address on a network of this node alone (docker_gwbridge, a user bridge);
    overlay addresses may repeat from one network to the next and prove nothing. Then the askers of the file
    source, in the order listed.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._containers = _containers_by_address(snapshot)
        self._askers = [(ip_network(asker.source), asker) for asker in snapshot.askers if _valid(asker)]

    def find(self, source: str) -> Scope | None:
        """The scope of whoever asks from this address; None: nobody that we answer."""
        container = self._containers.get(source)
        if container is not None:
            return scope_of(container, self._snapshot)
        address = ip_address(source.partition("%")[0])
        subnets: list[tuple[IPv4Network | IPv6Network, Asker]] = self._askers
        asker = next((asker for subnet, asker in subnets if address in subnet), None)
        return None if asker is None else scope_of_asker(asker, self._snapshot)


def _valid(asker: Asker) -> bool:
    try:
        ip_network(asker.source)
    except ValueError:
        return False
    return True


def _containers_by_address(snapshot: Snapshot) -> dict[str, Container | None]:
    """Address → its container; None where two claim it: then neither is believed."""
    found: dict[str, Container | None] = {}
    for container in snapshot.containers.values():
        if not container.running:
            continue
        for attached in container.attachments:
            network = snapshot.networks.get(attached.network)
            if network is None or network.scope == "swarm":
                continue
            for address in filter(None, (attached.address, attached.address6)):
                found[address] = None if address in found else container
    return found
