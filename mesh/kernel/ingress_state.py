"""What this node's published ports are to lead to in the kernel, as the catalogue says: relayed ones too, for
when there is no relay. Pure.

Kept up with the catalogue in O(changed): a service's change marks its ports and the nodes of its tasks, what
a node says of its return path marks that node. `settle` gives the difference since the last time,
`everything` the whole.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from mesh.balance.hash_slots import NOBODY
from mesh.catalog.model import Network, Node, Service
from mesh.kernel.rulesets import PortTarget, service_choice
from mesh.labels.ports import Carrier, plan


@dataclass(frozen=True, slots=True)
class Ports:
    """What is to be loaded, or has been; or as much of it as differs."""

    targets: Mapping[str, PortTarget] = field(default_factory=dict)
    kept: Collection[str] = ()  # addresses of tasks that are sent the client's own address


class Published:
    """This node's ports. `default`: the carrier where no label names one."""

    def __init__(self, default: Carrier = Carrier.KERNEL, this_node: str = "") -> None:
        self._default = default
        self._this_node = this_node
        self._of_service: dict[str, dict[str, PortTarget]] = {}
        self._targets: dict[str, PortTarget] = {}
        self._settled: dict[str, PortTarget | None] = {}  # key → as it was, of ports that may have changed
        self._tasks: defaultdict[str, set[str]] = defaultdict(set)  # node → those that ports lead to
        self._node_of: dict[str, dict[str, str]] = {}  # service → ingress address → node
        self._kept: dict[str, frozenset[str]] = {}  # node → of its addresses those that are kept
        self._moved: set[str] = set()  # nodes to be judged again

    def identify(self, this_node: str, services: Mapping[str, Service], ingress: Network | None) -> None:
        """This node's id is known, or another one: which tasks are near has changed."""
        if this_node != self._this_node:
            self._this_node = this_node
            for id_, service in services.items():
                self.set_service(id_, service, ingress)

    @property
    def kept(self) -> frozenset[str]:
        """As last settled."""
        return frozenset().union(*self._kept.values())

    def set_service(self, id_: str, service: Service | None, ingress: Network | None) -> None:
        """A service as it is now; None: it is gone."""
        before = self._of_service.pop(id_, {})
        after = self._ports(service, ingress) if service else {}
        for key in before.keys() | after.keys():
            if before.get(key) != after.get(key):
                self._settled.setdefault(key, self._targets.get(key))
                self._put(key, after.get(key))
        if after:
            self._of_service[id_] = after
        self._place_tasks(id_, service if after else None, ingress)

    def heed_node(self, node: str) -> None:
        """What it says of its return path may have changed."""
        self._moved.add(node)

    def settle(self, entry: str, nodes: Mapping[str, Node]) -> tuple[Ports, Ports]:
        """(as it was, as it is now) of all that has changed since the last time. `entry`: this node's own."""
        marked, self._settled = self._settled, {}
        differs = {key: was for key, was in marked.items() if was != self._targets.get(key)}
        was = {key: target for key, target in differs.items() if target is not None}
        now = {key: self._targets[key] for key in differs if key in self._targets}
        gone, new = self._judge(self._moved, entry, nodes)
        self._moved = set()
        return Ports(was, gone), Ports(now, new)

    def everything(self, entry: str, nodes: Mapping[str, Node]) -> Ports:
        """All of it, which counts as settled."""
        self._settled, self._moved, self._kept = {}, set(), {}
        _, kept = self._judge(set(self._tasks), entry, nodes)
        return Ports(dict(self._targets), kept)

    # --- one service ---

    def _ports(self, service: Service, ingress: Network | None) -> dict[str, PortTarget]:
        here = self._this_node
        return {
            one.key: PortTarget(
                one.port.published,
                one.port.protocol,
                one.port.target,
                service_choice(service, ingress.id, one.policy, one.locality, here) if ingress else NOBODY,
                one.source_ip == "masquerade",
                one.carrier.in_user_space,
            )
            for one in plan(service, self._default).ports
            if one.carrier is not Carrier.DOCKER
        }

    def _put(self, key: str, target: PortTarget | None) -> None:
        if target is not None:
            self._targets[key] = target
            return
        self._targets.pop(key, None)
        # Another service's, if it has claimed the same port meanwhile (an update that moves it).
        other = next((ports[key] for ports in self._of_service.values() if key in ports), None)
        if other is not None:
            self._targets[key] = other

    def _place_tasks(self, id_: str, service: Service | None, ingress: Network | None) -> None:
        before, after = self._node_of.pop(id_, {}), _nodes_of(service, ingress)
        if after:
            self._node_of[id_] = after
        if before == after:
            return
        for address, node in before.items():
            self._tasks[node].discard(address)
        for address, node in after.items():
            self._tasks[node].add(address)
        self._moved.update(before.values(), after.values())

    # --- whose client address is kept ---

    def _judge(
        self, moved: Collection[str], entry: str, nodes: Mapping[str, Node]
    ) -> tuple[list[str], list[str]]:
        """(no longer kept, newly kept). A node answers for its own tasks only."""
        gone, new = list[str](), list[str]()
        for id_ in moved:
            before, after = self._kept.pop(id_, frozenset()), self._kept_of(id_, entry, nodes.get(id_))
            if after:
                self._kept[id_] = after
            if id_ in self._tasks and not self._tasks[id_]:
                del self._tasks[id_]
            gone += before - after
            new += after - before
        moving = set(gone) & set(new)  # an address that is now a task's of another node
        return [a for a in gone if a not in moving], [a for a in new if a not in moving]

    def _kept_of(self, id_: str, entry: str, node: Node | None) -> frozenset[str]:
        if node is None or not entry or entry not in node.return_path.entries:
            return frozenset()
        return frozenset(self._tasks.get(id_, ())) & frozenset(node.return_path.tasks)


def as_published(ports: Ports) -> Ports:
    """With Docker's ingress rules a task's ingress address takes only the published port, and maps it on."""
    return replace(ports, targets={k: replace(t, target=t.published) for k, t in ports.targets.items()})


def _nodes_of(service: Service | None, ingress: Network | None) -> dict[str, str]:
    if service is None or ingress is None:
        return {}
    found = ((task.addresses.get(ingress.id), task.node) for task in service.serving())
    return {address: node for address, node in found if address}
