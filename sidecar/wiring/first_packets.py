"""A client's first packet to each port of this node, to be led through the node's rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.kernel.firewall.review import LISTENER_MARKS
from mesh.kernel.firewall.rule_walk import FirstPacket
from mesh.kernel.ingress import SandboxPlace


def first_packets(
    ports: Sequence[Mapping[str, Any]], entries: Mapping[str, int], place: SandboxPlace | None
) -> dict[str, FirstPacket]:
    """By what a person calls the port. `ports`: of `mesh status`; `entries`: entry point → port."""
    found = dict[str, FirstPacket]()
    for one in ports:
        number, protocol, mode = int(one["published"]), str(one["protocol"]), str(one["mode"])
        name = f"{number}/{protocol} of {one['service']}"
        if mode in ("docker", "taken"):
            continue
        if mode != "kernel":
            found[name] = listened(protocol, number)
        elif place is not None:
            found[name] = forwarded(protocol, number, place)
        found[f"{name} over IPv6"] = listened(protocol, number, over_ipv6=True)
    found |= {f"{port}/tcp of entry point {name}": listened("tcp", port) for name, port in entries.items()}
    return found


def forwarded(protocol: str, port: int, place: SandboxPlace) -> FirstPacket:
    """Carried by the kernel, to the ingress namespace."""
    return FirstPacket(protocol, port, True, place.host.sandbox, place.host.bridge)


def listened(protocol: str, port: int, *, over_ipv6: bool = False) -> FirstPacket:
    """For a listener of the node."""
    return FirstPacket(protocol, port, marks=LISTENER_MARKS, over_ipv6=over_ipv6)
