"""What Swarm has given out beyond services and their tasks, as a manager's engine tells it. Pure.

`/tasks` with the filter `runtime=attachment` lists a task for each plain container on an attachable overlay:
its node, its container, its address. `network inspect --verbose` of the ingress network names the endpoint
(`ingress-endpoint`) of each node by the address of its host. Both are what managers can hold the reports of
the nodes against. Seen on engines 20.10.24 and 26.1.5.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.catalog.model import Node
from mesh.discovery.swarm_json import ENDED, bare

Json = Mapping[str, Any]

ATTACHMENTS_FILTER = {"runtime": ["attachment"]}
ENTRY_NAME = "ingress-endpoint"  # libnetwork's name for the endpoint of `ingress_sbox`


@dataclass(frozen=True, slots=True)
class Allocations:
    """`attached`: node → networks on which a plain container of it is. `owners`: (network, address) → node of
    the plain container that has it. `gateways`: network → addresses. `entries`: node → address of its entry
    on the ingress network. `ingress_others`: addresses there that are no entry's."""

    attached: Mapping[str, frozenset[str]] = field(default_factory=dict)
    owners: Mapping[tuple[str, str], str] = field(default_factory=dict)
    gateways: Mapping[str, frozenset[str]] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)
    ingress_others: frozenset[str] = frozenset()


def allocations(
    nodes: Iterable[Node], networks: Iterable[Json], attachments: Iterable[Json], ingress: Json | None
) -> Allocations:
    """`attachments`: `/tasks` with ATTACHMENTS_FILTER. `ingress`: inspected verbosely, None: unknown."""
    attached: dict[str, set[str]] = {}
    owners: dict[tuple[str, str], str] = {}
    for task in attachments:
        spec, node = task.get("Spec") or {}, task.get("NodeID") or ""
        state = (task.get("Status") or {}).get("State", "new")
        if not spec.get("NetworkAttachmentSpec") or not node or state in ENDED:
            continue
        for one in task.get("NetworksAttachments") or ():
            network = (one.get("Network") or {}).get("ID") or ""
            attached.setdefault(node, set()).add(network)
            for address in one.get("Addresses") or ():
                owners[network, bare(address)] = node
    entries, others = _ingress(nodes, ingress or {})
    return Allocations(
        {node: frozenset(found) for node, found in attached.items()},
        owners,
        {one["Id"]: frozenset(_gateways(one)) for one in networks if one.get("Scope") == "swarm"},
        entries,
        others,
    )


def _gateways(network: Json) -> Iterable[str]:
    for one in (network.get("IPAM") or {}).get("Config") or ():
        if one.get("Gateway"):
            yield bare(one["Gateway"])


def _ingress(nodes: Iterable[Node], json: Json) -> tuple[Mapping[str, str], frozenset[str]]:
    """A host with several entries, or several nodes behind one address, prove nothing."""
    known = list(nodes)
    node_counts = Counter(one.address for one in known)
    node_of = {one.address: one.id for one in known if one.address and node_counts[one.address] == 1}
    found: dict[str, str] = {}
    others: set[str] = set()
    unclear: set[str] = set()
    for name, service in (json.get("Services") or {}).items():
        if name and (vip := service.get("VIP")) and vip != "<nil>":
            others.add(vip)
        for one in service.get("Tasks") or ():
            address, host = one.get("EndpointIP") or "", (one.get("Info") or {}).get("Host IP", "")
            if name or one.get("Name") != ENTRY_NAME:
                others.add(address)
            elif node := node_of.get(host):
                unclear |= {node} if found.setdefault(node, address) != address else set()
    return {node: one for node, one in found.items() if node not in unclear}, frozenset(others - {""})
