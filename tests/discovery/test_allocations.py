"""What a manager's engine tells of plain containers and of entries; the JSON is that of engine 20.10.24."""

from typing import Any

from mesh.catalog.model import Node
from mesh.discovery.allocations import allocations

NODES = [Node("n0", "swarm00", "192.168.2.60"), Node("n1", "swarm01", "192.168.2.61")]
NETWORKS = [
    {"Id": "in", "Scope": "swarm", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}]}},
    {"Id": "att", "Scope": "swarm", "IPAM": {"Config": [{"Subnet": "10.0.1.0/24"}]}},
    {"Id": "host", "Scope": "local", "IPAM": {"Config": None}},
]


def attachment(node: str, network: str, address: str, state: str = "running") -> dict[str, Any]:
    return {
        "ID": "t",
        "Spec": {"NetworkAttachmentSpec": {"ContainerID": "c0ffee"}, "Runtime": "attachment"},
        "NodeID": node,
        "Status": {"State": state},
        "NetworksAttachments": [{"Network": {"ID": network}, "Addresses": [f"{address}/24"]}],
    }


def endpoint(name: str, address: str, host: str) -> dict[str, Any]:
    return {"Name": name, "EndpointIP": address, "Info": {"Host IP": host}}


def ingress(*entries: tuple[str, str]) -> dict[str, Any]:
    own = [endpoint("ingress-endpoint", address, host) for address, host in entries]
    task = endpoint("w.1.x", "10.0.0.7", "192.168.2.60")
    return {
        "Id": "in",
        "Services": {"": {"VIP": "<nil>", "Tasks": own}, "w": {"VIP": "10.0.0.5", "Tasks": [task]}},
    }


def test_who_has_what() -> None:
    told = [attachment("n1", "att", "10.0.1.7"), {"ServiceID": "s", "Spec": {"ContainerSpec": {}}}]
    entries = ("10.0.0.2", "192.168.2.60"), ("10.0.0.4", "192.168.2.61"), ("10.0.0.3", "192.168.2.62")
    found = allocations(NODES, NETWORKS, told, ingress(*entries))
    assert found.attached == {"n1": {"att"}}
    assert found.owners == {("att", "10.0.1.7"): "n1"}
    assert found.gateways == {"in": {"10.0.0.1"}, "att": frozenset()}
    assert found.entries == {"n0": "10.0.0.2", "n1": "10.0.0.4"}
    assert found.ingress_others == {"10.0.0.5", "10.0.0.7"}


def test_containers_that_have_ended_have_nothing() -> None:
    assert not allocations(NODES, NETWORKS, [attachment("n1", "att", "10.0.1.7", "failed")], None).owners


def test_what_is_not_clear_proves_nothing() -> None:
    twice = ingress(("10.0.0.2", "192.168.2.60"), ("10.0.0.3", "192.168.2.60"))
    assert allocations(NODES, NETWORKS, [], twice).entries == {}
    alike = [*NODES, Node("n2", "swarm02", "192.168.2.60")]
    assert allocations(alike, NETWORKS, [], ingress(("10.0.0.2", "192.168.2.60"))).entries == {}
    assert allocations(NODES, NETWORKS, [], None).entries == {}
