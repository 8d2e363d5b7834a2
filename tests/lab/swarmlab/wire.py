"""The cables: a namespace with two bridges, one leg per node and network, and the outside client.

    wire:  front ─┬─ swarm00-front … client-front        back ─┬─ swarm00-back …
    node:         └─ ens32 10.10.10.60+i                        └─ ens33 192.168.2.60+i
    client:          ens32 10.10.10.1

A partition is a bridge table that drops frames between the legs of two nodes, ARP included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from .places import CLIENT_ADDRESS, Machine, Places
from .shell import run, works

NETWORKS = {"front": "ens32", "back": "ens33"}  # bridge → the interface in the node


def inside(namespace: Path, command: Sequence[str | Path]) -> list[str]:
    """The words that run a command in a network namespace kept as a file."""
    return ["nsenter", f"--net={namespace}", *(str(word) for word in command)]


def lay(places: Places) -> None:
    """Make the wire and client namespaces."""
    places.namespaces.mkdir(parents=True)
    for namespace in (places.wire, places.client):
        namespace.touch()
        run(["unshare", f"--net={namespace}", "true"])
    bridges = [
        line
        for bridge in NETWORKS
        for line in (
            f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {bridge} up",
        )
    ]
    leg = f"link add client-front type veth peer name ens32 netns {places.client}"
    _ip(places.wire, ["link set lo up", *bridges, leg, "link set client-front master front up"])
    address = f"addr add {CLIENT_ADDRESS}/24 dev ens32"
    _ip(places.client, ["link set lo up", address, "link set ens32 up"])


def laid(places: Places) -> bool:
    """True if the namespaces are there (they are not after a restart of the machine)."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return all(f" {namespace} " in mounts for namespace in (places.wire, places.client))


def plug(places: Places, machine: Machine, pid: int) -> None:
    """Give the machine whose process is `pid` its two interfaces."""
    unplug(places, machine)
    lines = []
    for bridge, interface in NETWORKS.items():
        leg = f"{machine.name}-{bridge}"
        lines.append(f"link add {leg} type veth peer name {interface} netns {pid}")
        lines.append(f"link set {leg} master {bridge} up")
    _ip(places.wire, lines)


def unplug(places: Places, machine: Machine) -> None:
    """Pull the machine's cables; nothing it says from now on is heard."""
    for bridge in NETWORKS:
        works(inside(places.wire, ["ip", "link", "delete", f"{machine.name}-{bridge}"]))


def partition(places: Places, one: Sequence[str], other: Sequence[str]) -> None:
    """Cut every machine of `one` off every machine of `other`, both ways, on both networks."""
    drops = [
        f'iifname "{a}-*" oifname "{b}-*" drop' for x, y in product(one, other) for a, b in ((x, y), (y, x))
    ]
    rules = [
        "add table bridge partition",
        "add chain bridge partition between { type filter hook forward priority 0; }",
        *(f"add rule bridge partition between {drop}" for drop in drops),
    ]
    run(inside(places.wire, ["nft", "-f", "-"]), text="\n".join(rules) + "\n")


def heal(places: Places) -> None:
    """All machines see each other again."""
    rules = (
        "add table bridge partition\ndelete table bridge partition\n"  # the first: no error if there is none
    )
    run(inside(places.wire, ["nft", "-f", "-"]), text=rules)


def cuts(places: Places) -> list[str]:
    """The drop rules in force, as nft writes them."""
    listed = run(inside(places.wire, ["nft", "list", "ruleset", "bridge"]))
    return [line.strip() for line in listed.splitlines() if line.strip().endswith("drop")]


def _ip(namespace: Path, lines: Sequence[str]) -> None:
    run(inside(namespace, ["ip", "-batch", "-"]), text="\n".join(lines) + "\n")
