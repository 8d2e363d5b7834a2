"""What the nodes say of keeping the client's address, laid over what Swarm says of the nodes. Pure.

Swarm knows neither where a node's published ports enter the ingress network nor which of its tasks answer
through which entry, so each node's sidecar tells the managers' (`ReturnPath`), always all of it. A manager
keeps the last word of each node and lays it over its view, as far as it believes it: an entry's address and
MAC have one owner (`mesh.catalog.entries`), held against what the engine says of the ingress network.

A node that says nothing for a while is without its sidecar, but what that has set up in its tasks' namespaces
works on without it. So the last word stands until Swarm calls the node down or removes it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.diff import changed
from mesh.catalog.entries import ClaimFault, EntryClaim, EntryFacts, gateways_of, is_host_address, judge
from mesh.catalog.model import NO_RETURN_PATH, Network, Node, ReturnPath, Service
from mesh.catalog.snapshot import Change
from mesh.discovery.allocations import Allocations
from mesh.errors import Problem

DOWN = "down"  # a node's state
REASONS = tuple(map(str, ClaimFault))
WHY = {
    ClaimFault.ADDRESS: "it is no address that this node can enter the ingress network at",
    ClaimFault.MAC: "that MAC address is another address's, or none",
    ClaimFault.TAKEN: "another node enters there, or has that MAC address",
}


class ReturnPathOverlay:
    """A manager's book of them. `refused` counts claims that were not believed, by reason, once for each
    different one (`mesh.catalog.entries.ClaimFault`)."""

    def __init__(self) -> None:
        self._said: dict[str, ReturnPath] = {}  # by node, as it was said
        self._shown: dict[str, ReturnPath] = {}  # what of it is believed
        self._checked: dict[str, tuple[object, ReturnPath]] = {}  # by node: what was looked at → the result
        self._nodes: Mapping[str, Node] = {}  # as Swarm has them
        self._held: Mapping[str, EntryClaim] = {}
        self._judged: tuple[Mapping[str, EntryClaim], EntryFacts] | None = None  # of which that is the result
        self._faults: dict[str, tuple[EntryClaim, ClaimFault]] = {}
        self._facts = EntryFacts()
        self._subnets: tuple[IPv4Network, ...] | None = None
        self._allocations = Allocations()
        self.refused = Counter(dict.fromkeys(REASONS, 0))

    def begin(self, known: Mapping[str, Node]) -> None:
        """This node is a manager from now on. What was known stands until the nodes speak."""
        self._said = {id_: one.return_path for id_, one in known.items() if one.return_path != NO_RETURN_PATH}
        self._nodes, self._shown, self._checked, self._held, self._faults = {}, {}, {}, {}, {}
        self._judged = None

    def lay_over(self, view: ClusterView, known: Allocations | None = None) -> ClusterView:
        """Swarm's new view, as it is to be told. Nodes that are gone or down are not believed any more.

        `known`: what the engine says now of the ingress network; None: as before.
        """
        self._nodes = view.nodes
        self._allocations = self._allocations if known is None else known
        self._learn(view)
        up = {id_ for id_, node in view.nodes.items() if node.state != DOWN}
        self._said = {id_: said for id_, said in self._said.items() if id_ in up}
        self._judge()
        if not self._shown:
            return view
        laid = {id_: replace(view.nodes[id_], return_path=said) for id_, said in self._shown.items()}
        return replace(view, nodes={**view.nodes, **laid})

    def report(self, node: str, said: ReturnPath) -> Change:
        """The node's word; returns what that changes in the view."""
        known = self._nodes.get(node)
        if known is None or known.state == DOWN or self._said.get(node, NO_RETURN_PATH) == said:
            return Change()
        if said == NO_RETURN_PATH:
            self._said.pop(node, None)
        else:
            self._said[node] = said
        before = self._shown
        self._judge()
        moved = changed(before, self._shown)
        return Change(
            nodes={
                id_: replace(self._nodes[id_], return_path=now or NO_RETURN_PATH)
                for id_, now in moved.items()
            }
        )

    def problems(self) -> Iterator[Problem]:
        """Claims that are refused now, and whose they are."""
        for id_, (claim, fault) in sorted(self._faults.items()):
            where = f"{claim.address or 'no address'}, MAC {claim.mac or 'none'}"
            yield Problem(
                f"node {self._nodes[id_].name or id_}",
                "return path",
                f"says that it enters the ingress network at {where}: {WHY[fault]}; refused",
            )

    # --- judging ---

    def _learn(self, view: ClusterView) -> None:
        network = next((one for one in view.networks.values() if one.ingress), None)
        if network is None:
            self._facts, self._subnets = EntryFacts(proven=self._allocations.entries), None
            return
        self._subnets = tuple(_ip4(network))
        gateways = self._allocations.gateways.get(network.id) or frozenset(gateways_of(network.subnets))
        others = gateways | self._allocations.ingress_others | _addresses(view.services, network.id)
        self._facts = EntryFacts(network.subnets, None, self._allocations.entries, others)

    def _judge(self) -> None:
        """All claims: one that is taken back may be another's."""
        claims = {id_: EntryClaim(said.entry, said.mac) for id_, said in self._said.items()}
        if (claims, self._facts) != self._judged:  # most news is of tasks that answer, and changes none
            self._judged = claims, self._facts
            judged = judge(claims, self._facts, self._held)
            self._held = judged.accepted
            faults = {id_: (claims[id_], fault) for id_, fault in judged.refused.items()}
            for id_, fault in faults.items():
                self.refused[str(fault[1])] += self._faults.get(id_) != fault
            self._faults = faults
        before, self._checked = self._checked, {}
        for id_, said in self._said.items():
            key = (said, id_ in self._held, self._subnets)
            same = before.get(id_)
            self._checked[id_] = same if same and same[0] == key else (key, _believed(*key))
        shown = {id_: said for id_, (_, said) in self._checked.items()}
        self._shown = {id_: said for id_, said in shown.items() if said != NO_RETURN_PATH}


def _believed(said: ReturnPath, has_entry: bool, subnets: tuple[IPv4Network, ...] | None) -> ReturnPath:
    """A node's word on its own tasks harms nobody else's, but addresses have to be some."""
    entries = tuple(one for one in said.entries if is_host_address(one, subnets))
    tasks = tuple(one for one in said.tasks if is_host_address(one, subnets))
    return (
        ReturnPath(said.entry, said.mac, entries, tasks) if has_entry else ReturnPath("", "", entries, tasks)
    )


def _addresses(services: Mapping[str, Service], network: str) -> frozenset[str]:
    """Of tasks and virtual IPs on the network."""
    found = {task.addresses.get(network, "") for one in services.values() for task in one.tasks}
    found |= {at.vip or "" for one in services.values() for at in one.networks if at.network == network}
    return frozenset(found - {""})


def _ip4(network: Network) -> Iterator[IPv4Network]:
    for text in network.subnets:
        try:
            yield IPv4Network(text, strict=False)
        except ValueError:
            continue  # IPv6
