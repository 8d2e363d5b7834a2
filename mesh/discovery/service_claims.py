"""The names and addresses that Swarm's services have, against which plain containers' are held. Pure.

Kept up as the cluster's view changes: services that are the same object as before are passed over, so a new
view costs a comparison of identities and work in proportion to what is different.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mesh.catalog.model import Service

Place = tuple[str, str]  # network, address

TASKS = "tasks."  # before a service's name: its tasks (`mesh.dns.names`)
# Names that mean something to resolvers themselves, or to Docker (RFC 6761, RFC 6762; host.docker.internal).
RESERVED = ("localhost", "arpa", "local", "docker.internal")


@dataclass(frozen=True, slots=True)
class HeldNames:
    """What is held by services: `names` in lower case."""

    names: frozenset[str]
    places: frozenset[Place]
    nodes: frozenset[tuple[str, str]]  # (node, network) on which a task is


NONE = HeldNames(frozenset(), frozenset(), frozenset())


class ServiceClaims:
    def __init__(self) -> None:
        self._of: dict[str, tuple[Service, HeldNames]] = {}
        self._names: Counter[str] = Counter()
        self._places: Counter[Place] = Counter()
        self._nodes: Counter[tuple[str, str]] = Counter()

    def follow(self, services: Mapping[str, Service]) -> HeldNames:
        """These are all services now. Returns what is held by others than before, or by nobody any more."""
        before, self._of = self._of, {}
        touched: list[HeldNames] = []
        for id_, service in services.items():
            was = before.pop(id_, None)
            if was is None or was[0] is not service:
                held = _held(service)
                touched += self._swap(was[1] if was else NONE, held)
                was = service, held
            self._of[id_] = was
        for _, held in before.values():
            touched += self._swap(held, NONE)
        return HeldNames(
            frozenset().union(*(one.names for one in touched)),
            frozenset().union(*(one.places for one in touched)),
            frozenset().union(*(one.nodes for one in touched)),
        )

    def has_name(self, name: str) -> bool:
        """A service, an alias of one, or a task, on whichever network; in whatever spelling."""
        return name.lower() in self._names

    def has_address(self, network: str, address: str) -> bool:
        """A task or a virtual IP."""
        return (network, address) in self._places

    def is_on(self, node: str, network: str) -> bool:
        """Has the node a task on this network?"""
        return (node, network) in self._nodes

    def _swap(self, before: HeldNames, after: HeldNames) -> Iterator[HeldNames]:
        if before == after:
            return
        for held, by in ((before, -1), (after, 1)):
            for name in held.names:
                _add(self._names, name, by)
            for place in held.places:
                _add(self._places, place, by)
            for node in held.nodes:
                _add(self._nodes, node, by)
        yield HeldNames(before.names ^ after.names, before.places ^ after.places, before.nodes ^ after.nodes)


def is_reserved(name: str, networks: frozenset[str]) -> bool:
    """A name that a plain container of another node can't have, whatever services there are.

    `tasks.NAME` is a service's. `NAME.NETWORK` is that network's, and would be found before it. The names of
    ports (SRV, RFC 2782) begin with an underscore. What ends in a number is read as an address.
    `networks`: their names, lower case.
    """
    folded = name.lower()
    if folded.startswith((TASKS, "_")):
        return True
    if any(folded == one or folded.endswith("." + one) for one in RESERVED):
        return True
    _, dot, rest = folded.partition(".")
    last = rest.rpartition(".")[2]
    if dot and last.isascii() and last.isdecimal():
        return True
    while rest:  # a network's name may have dots
        if rest in networks:
            return True
        rest = rest.partition(".")[2]
    return False


def _held(service: Service) -> HeldNames:
    names = {service.name}.union(*(at.aliases for at in service.networks))
    if service.stack:
        names.add(service.name.removeprefix(f"{service.stack}_"))
    places = {(at.network, at.vip) for at in service.networks if at.vip}
    nodes: set[tuple[str, str]] = set()
    for task in service.tasks:
        names.update((task.name, task.container[:12], task.hostname))
        places.update(task.addresses.items())
        nodes.update((task.node, network) for network in task.addresses)
    return HeldNames(frozenset(one.lower() for one in names if one), frozenset(places), frozenset(nodes))


def _add(counts: Counter, key: str | Place, by: int) -> None:  # type: ignore[type-arg]
    counts[key] += by
    if not counts[key]:
        del counts[key]
