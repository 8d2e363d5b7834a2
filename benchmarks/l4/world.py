"""One contender's wires: a client, an entry node, its ingress namespace, tasks, a container beside them.

    client ── front ── entry ══ docker_gwbridge ══ sandbox ─ overlay ┬─ tasks  one namespace, some addresses
                         └────────────── leg ───────────────────────┤
                                                                    └─ box    a container that asks for a VIP

Veth pairs and bridges, as Docker makes them but for the VXLAN between nodes. Every contender gets wires of
its own, so that only its own rules and connection tracking are in its way. `leg` is how a peer reaches the
tasks: from the entry node in one hop, as ours does from the sandbox.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mesh.kernel.devconf import InterfaceSetting, write
from mesh.kernel.netfilter import nft
from mesh.net.netns import Namespace
from tests.net.lab import Lab, inside, laboratory

CLIENT, ENTRY = "10.98.0.1", "10.98.0.60"
GATEWAY, SANDBOX, TASKS_ON_GATEWAY = "172.18.0.1", "172.18.0.2", "172.18.0.9"
SANDBOX_ON_OVERLAY, LEG, BOX = "10.0.0.2", "10.0.0.3", "10.0.0.9"
TASKS = tuple(f"10.0.0.{last}" for last in range(11, 15))
FRONT, SUBNET = "10.98.0.0/24", "10.0.0.0/24"

# Thousands of connections a second from one address use up the ports that one waits a minute for.
MANY_CONNECTIONS = ("net.ipv4.ip_local_port_range=10000 65535", "net.ipv4.tcp_tw_reuse=1")

# What Docker has on a node and in its containers in any case: with it, connections are tracked there.
DOCKER_ON_NODE = """
table ip nat {
  chain DOCKER { iifname "docker_gwbridge" return; }
  chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local jump DOCKER; }
  chain OUTPUT {
    type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER;
  }
  chain POSTROUTING {
    type nat hook postrouting priority 100;
    oifname != "docker_gwbridge" ip saddr 172.18.0.0/16 masquerade;
  }
}
"""
DOCKER_IN_CONTAINER = """
table ip nat {
  chain OUTPUT { type nat hook output priority -100; ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:9; }
  chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 127.0.0.11 udp sport 9 snat to :53; }
}
"""


@dataclass(frozen=True)
class World:
    """`netns` is the folder in which Docker would show the ingress namespace."""

    client: Namespace
    entry: Namespace
    sandbox: Namespace
    tasks: Namespace
    box: Namespace
    netns: Path


@contextmanager
def worlds() -> Iterator["Wires"]:
    with laboratory() as lab, TemporaryDirectory(prefix="mesh-bench-netns-") as folder:
        yield Wires(lab, Path(folder))


class Wires:
    """Makes worlds; all are gone at the end."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._made = 0

    def world(self, *, routed: bool = False, bare: bool = False) -> World:
        """`routed`: the client reaches the tasks' own addresses through the same hops; there is no leg.
        `bare`: there are not even Docker's own rules."""
        self._made += 1
        lab, number = self._lab, self._made
        front, gateway, overlay = (lab.switch(f"{name}{number}") for name in ("front", "gw", "over"))
        client, entry, sandbox, tasks, box = (
            lab.namespace(f"{name}{number}") for name in ("client", "entry", "sbox", "tasks", "box")
        )
        lab.plug(client, "eth0", f"{CLIENT}/24", front)
        lab.plug(entry, "ens32", f"{ENTRY}/24", front)
        lab.plug(entry, "docker_gwbridge", f"{GATEWAY}/16", gateway)
        lab.plug(sandbox, "eth1", f"{SANDBOX}/16", gateway)
        lab.plug(sandbox, "eth0", f"{SANDBOX_ON_OVERLAY}/24", overlay)
        lab.plug(tasks, "eth0", f"{TASKS[0]}/24", overlay)
        lab.plug(box, "eth0", f"{BOX}/24", overlay)
        for address in TASKS[1:]:
            inside(tasks, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        lab.plug(tasks, "eth1", f"{TASKS_ON_GATEWAY}/16", gateway)
        for member in (sandbox, tasks):
            inside(member, "ip", "route", "add", "default", "via", GATEWAY)
        if routed:
            self._route(client, entry, sandbox, tasks)
        else:
            lab.plug(entry, "leg", f"{LEG}/24", overlay)
        _forward(entry, "ens32", "docker_gwbridge")
        if not bare:
            entry.call(partial(nft.run, DOCKER_ON_NODE))
            for container in (tasks, box):
                container.call(partial(nft.run, DOCKER_IN_CONTAINER))
        for connecting in (client, entry, sandbox, box):
            for setting in MANY_CONNECTIONS:
                inside(connecting, "sysctl", "-q", "-w", setting)
        netns = self._folder / str(number)
        netns.mkdir()
        assert sandbox.path is not None
        (netns / "ingress_sbox").symlink_to(sandbox.path)
        return World(client, entry, sandbox, tasks, box, netns)

    def _route(self, client: Namespace, entry: Namespace, sandbox: Namespace, tasks: Namespace) -> None:
        inside(client, "ip", "route", "add", SUBNET, "via", ENTRY)
        inside(entry, "ip", "route", "add", SUBNET, "via", SANDBOX)
        inside(tasks, "ip", "route", "add", FRONT, "via", SANDBOX_ON_OVERLAY)
        _forward(sandbox, "eth0", "eth1")


def _forward(namespace: Namespace, *interfaces: str) -> None:
    for one in interfaces:
        namespace.call(partial(write, one, {InterfaceSetting.forwarding: 1}))
