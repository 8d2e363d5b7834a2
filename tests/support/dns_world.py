"""A small Swarm with every kind of name that Docker knows, and containers that ask for them.

The world stands as data (`NETWORKS`, `SERVICES`, `CONTAINERS`, `STACK`); `deploy` makes it on the lab, waits
until Docker's own resolvers know all of it, and returns what the questions are made of: names, addresses,
askers.
"""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.swarm import APP_IMAGE, NODES, Box, Swarm, eventually

CROWD = 33  # tasks; 30 addresses are what fits into a UDP reply without EDNS
SERVER = "10.10.10.1"  # the DNS server that the lab's nodes use
COMMANDS_AT_ONCE = 4  # of the docker command line on the lab; the machine has few cores
LONG = "a-name-of-more-than-sixty-three-octets-which-no-dns-label-can-ever-hold"


@dataclass(frozen=True)
class Net:
    name: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """`networks` are as `--network` wants them."""

    name: str
    networks: tuple[str, ...]
    options: tuple[str, ...] = ()
    tasks: int = 1


@dataclass(frozen=True)
class Plain:
    """A container that no service made: `first` is its network in `docker run`; `more` are connected then."""

    name: str
    node: str
    first: str
    options: tuple[str, ...] = ()
    more: tuple[tuple[str, ...], ...] = ()  # what follows `docker network connect`, without the container

    def values(self, *options: str) -> Iterator[str]:
        """What was given for these options."""
        words = [word for group in (self.options, *self.more) for word in group]
        yield from (value for option, value in pairwise(words) if option in options)

    @property
    def links(self) -> tuple[str, ...]:
        return tuple(value.partition(":")[2] for value in self.values("--link"))


OVERLAYS = (
    Net("alpha"),
    Net("beta"),
    Net("vault", ("--internal",)),  # comes after the others, in spite of its name being no later than `zone`
    Net("zone"),
    Net("yard"),
    Net("Mixed"),
)
BRIDGES = (
    Net("aaa"),  # local networks come after the overlays, in spite of the name
    Net("loc.al"),
    Net("b.c.d"),
    Net("cell", ("--internal",)),
    Net("six", ("--ipv6", "--subnet", "fd00:77::/64")),
)
BRIDGE_NODES = ("swarm01", "swarm02")  # the same names on both, and not the same networks

SERVICES = (
    Service("web", ("name=alpha,alias=www,alias=shared,alias=web.beta", "name=beta,alias=www,alias=both"),
            ("--replicas", "2", "--label", "mesh.dns.srv.http=8080"), 2),
    Service("rr", ("name=alpha,alias=round,alias=shared", "name=yard,alias=v1.api"),
            ("--replicas", "2", "--endpoint-mode", "dnsrr"), 2),
    Service("all", ("name=alpha,alias=everywhere,alias=both", "name=vault,alias=both"),
            ("--mode", "global"), len(NODES)),
    Service("CamelCase", ("Mixed", "name=alpha,alias=hump"), ("--replicas", "1"), 1),
    Service("hosts", ("name=zone,alias=both", "name=vault"),
            ("--replicas", "2", "--hostname", "host-{{.Task.Slot}}.example"), 2),
    Service("none", ("name=alpha,alias=nobody",), ("--replicas", "0"), 0),
    Service("norr", ("name=alpha,alias=nobody-rr",), ("--replicas", "0", "--endpoint-mode", "dnsrr"), 0),
    Service("crowd", ("name=beta,alias=many",),
            ("--replicas", str(CROWD), "--endpoint-mode", "dnsrr"), CROWD),
)  # fmt: skip
UNSERVED = tuple(service for service in SERVICES if not service.tasks)
INTERNAL = frozenset(net.name for net in (*OVERLAYS, *BRIDGES) if "--internal" in net.options)

OTHER_NETWORKS = ("red_own", "ingress", "bridge", "nowhere")

CONTAINERS = (
    Plain("p-alpha", "swarm02", "alpha", ("--network-alias", "pal", "--hostname", "paul")),
    Plain("p-far", "swarm01", "alpha", ("--network-alias", "pal", "--hostname", "far.example")),
    Plain("p-all", "swarm02", "aaa", ("--network-alias", "both"),
          (("--alias", "dup", "zone"), ("--alias", "dup", "vault"), ("--alias", "dup", "beta"),
           ("--alias", "dup", "--alias", "four.test", "alpha"), ("yard",), ("Mixed",),
           ("--alias", "dup", "--alias", "deep", "b.c.d"))),
    Plain("p-vault", "swarm02", "vault", ("--network-alias", "dup")),
    Plain("p-dns", "swarm02", "alpha",
          ("--dns", SERVER, "--dns-search", "example.test", "--dns-option", "ndots:2")),
    Plain("dotted.name.box", "swarm02", "aaa", ("--network-alias", "Upper", "--network-alias", "sub.alias")),
    Plain("p-link", "swarm02", "aaa",
          ("--link", "dotted.name.box:linked", "--link", "dotted.name.box:Linked2")),
    Plain("p-overlink", "swarm02", "alpha", ("--link", "p-alpha:overlinked", "--link", "p-alpha:web")),
    Plain("p-local", "swarm02", "loc.al", ("--network-alias", "both")),
    Plain("p-aaa-far", "swarm01", "aaa", ("--network-alias", "both")),
    Plain("p-cell", "swarm02", "cell"),
    Plain("p-six", "swarm02", "six", ("--network-alias", "six-alias")),
    Plain(LONG, "swarm02", "alpha"),
)  # fmt: skip

STACKS = ("red", "blue")
STACK_NAMES = frozenset(("web", "mine", "both", "shared"))  # of its service, apart from the full one
STACK = f"""
version: "3.8"
services:
  web:
    image: {APP_IMAGE}
    command: [idle]
    stop_grace_period: 2s
    networks: {{own: {{aliases: [Mine, both]}}, alpha: {{aliases: [shared]}}}}
    deploy: {{replicas: 1, placement: {{constraints: [node.hostname==swarm02]}}}}
networks:
  own: {{}}
  alpha: {{external: true, name: alpha}}
"""


@dataclass(frozen=True)
class Asker:
    """A container that asks, and where Docker's resolver really listens in it."""

    name: str
    box: Box
    udp: int
    tcp: int
    stack: str = ""
    links: tuple[str, ...] = ()  # aliases given with `--link`, its alone

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(self.box.addresses)

    @property
    def shut_in(self) -> bool:
        """On internal networks alone: nothing may be asked outside for it."""
        return INTERNAL.issuperset(self.networks)


@dataclass(frozen=True)
class World:
    """What can be asked for, and by whom."""

    askers: dict[str, Asker]
    declared: tuple[str, ...]  # names and aliases that somebody chose; unqualified
    given: tuple[str, ...]  # names of tasks and ids of containers, which Docker chose
    networks: tuple[str, ...]
    addresses: tuple[str, ...]
    vips: dict[str, tuple[str, str]]  # address → service, network
    stacks: dict[str, frozenset[str]]  # stack → the addresses of its services and their tasks
    unspeakable: tuple[str, ...]  # addresses of a container whose name does not fit into DNS
    engine: str  # "20.10.24+dfsg1"
    as_docker: bool = False  # the mesh is set to do as Docker does, wherever it can be


@dataclass
class Builder:
    """Makes the world, and unmakes it."""

    swarm: Swarm
    folder: Path
    containers: list[tuple[str, str]] = field(default_factory=list)  # node, name

    def deploy(self) -> World:
        for net in OVERLAYS:
            self.swarm.network(net.name, "--attachable", *net.options)
        with ThreadPoolExecutor(COMMANDS_AT_ONCE) as pool:
            list(pool.map(self._service, SERVICES))
            list(pool.map(self._bridges, BRIDGE_NODES))
            for stack in STACKS:
                self.swarm.stack(stack, STACK, self.folder)
            list(pool.map(self._plain, BRIDGE_NODES))
        self._settle()
        return self._seen()

    def remove(self) -> None:
        for node in BRIDGE_NODES:
            names = [name for where, name in self.containers if where == node]
            self.swarm.docker("rm", "-f", *names, node=node, check=False)
            self.swarm.docker("network", "rm", *(net.name for net in BRIDGES), node=node, check=False)
        self.swarm.tidy()

    # -- making ------------------------------------------------------------------------------------

    def _service(self, service: Service) -> None:
        networks = [word for network in service.networks for word in ("--network", network)]
        self.swarm.docker(
            "service", "create", "--detach", "--no-resolve-image", "--name", service.name,
            "--stop-grace-period", "1s", *networks, *service.options, APP_IMAGE, "idle",
        )  # fmt: skip
        self.swarm.services.append(service.name)

    def _bridges(self, node: str) -> None:
        for net in BRIDGES:
            self.swarm.docker("network", "create", *net.options, net.name, node=node)

    def _plain(self, node: str) -> None:
        for plain in CONTAINERS:
            if plain.node != node:
                continue
            self.containers.append((node, plain.name))
            self.swarm.docker("run", "-d", "--name", plain.name, "--network", plain.first, *plain.options,
                              APP_IMAGE, "idle", node=node)  # fmt: skip
            for words in plain.more:
                self.swarm.docker("network", "connect", *words, plain.name, node=node)

    def _settle(self) -> None:
        """Every task runs. (That every resolver has heard of them is the business of whoever compares.)"""
        wanted = {service.name: service.tasks for service in SERVICES}
        wanted |= {f"{stack}_web": 1 for stack in STACKS}

        def look() -> bool:
            shown = self.swarm.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
            have = dict(line.split()[:2] for line in shown.splitlines())
            return all(have.get(name) == f"{count}/{count}" for name, count in wanted.items())

        eventually(look, "every service of the world runs", 240)

    # -- seeing ------------------------------------------------------------------------------------

    def _seen(self) -> World:
        found = {box.name: (box, data) for node in NODES for box, data in self._running(node)}
        vips = dict(self._vips())
        askers = [self._asker(plain.name, *found[plain.name]) for plain in CONTAINERS if plain.name != LONG]
        askers += [self._task(found, name) for name in ("web", "all", "crowd", "red_web", "blue_web")]
        addresses = {address for box, _ in found.values() for address in box.addresses.values() if address}
        addresses |= {one for _, data in found.values() for one in _sixes(data)}
        return World(
            askers={asker.name: asker for asker in askers},
            declared=tuple(dict.fromkeys(_declared())),
            given=tuple(dict.fromkeys(_given(data for _, data in found.values()))),
            networks=tuple(net.name for net in (*OVERLAYS, *BRIDGES)) + OTHER_NETWORKS,
            addresses=tuple(sorted(addresses | vips.keys())),
            vips=vips,
            stacks={stack: frozenset(_of_stack(stack, vips, found)) for stack in STACKS},
            unspeakable=tuple(found[LONG][0].addresses.values()),
            engine=self.swarm.docker("version", "--format", "{{.Server.Version}}"),
        )

    def _running(self, node: str) -> Iterator[tuple[Box, dict[str, Any]]]:
        out = self.swarm.on(node, "sh", "-c", "docker ps -q | xargs -r docker inspect --format '{{json .}}'")
        for line in out.splitlines():
            data = json.loads(line)
            box = self.swarm.box(node, data)
            if box is not None and any(box.addresses.values()):  # not the mesh's own, on the host's network
                yield box, data

    def _vips(self) -> Iterator[tuple[str, tuple[str, str]]]:
        listed = self.swarm.docker(
            "network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"
        ).splitlines()
        networks = dict(line.split() for line in listed)
        names = [service.name for service in SERVICES] + [f"{stack}_web" for stack in STACKS]
        for service in json.loads(self.swarm.docker("service", "inspect", *names)):
            for vip in service["Endpoint"].get("VirtualIPs", ()):
                address = vip["Addr"].partition("/")[0]
                yield address, (service["Spec"]["Name"], networks[vip["NetworkID"]])

    def _task(self, found: dict[str, tuple[Box, dict[str, Any]]], service: str) -> Asker:
        """One task of the service that is on a node with plain containers, if there is one."""
        mine = [name for name in found if name.startswith(f"{service}.")]
        mine.sort(key=lambda name: (found[name][0].node != "swarm02", name))
        return self._asker(service, *found[mine[0]])

    def _asker(self, name: str, box: Box, data: dict[str, Any]) -> Asker:
        rules = box.inside("iptables", "-t", "nat", "-S", "DOCKER_OUTPUT")
        ports = dict(re.findall(r"-p (udp|tcp) .*--to-destination 127\.0\.0\.11:(\d+)", rules))
        stack = data["Config"]["Labels"].get("com.docker.stack.namespace", "")
        links = tuple(link for plain in CONTAINERS if plain.name == name for link in plain.links)
        return Asker(name, box, int(ports["udp"]), int(ports["tcp"]), stack, links)


def _of_stack(
    stack: str, vips: dict[str, tuple[str, str]], found: dict[str, tuple[Box, dict[str, Any]]]
) -> Iterator[str]:
    """All addresses that the stack's services go by."""
    prefix = f"{stack}_"
    yield from (address for address, (service, _) in vips.items() if service.startswith(prefix))
    for name, (box, _) in found.items():
        if name.startswith(prefix):
            yield from box.addresses.values()


def _sixes(data: dict[str, Any]) -> Iterator[str]:
    networks = data["NetworkSettings"]["Networks"].values()
    yield from (one["GlobalIPv6Address"] for one in networks if one["GlobalIPv6Address"])


def _declared() -> Iterator[str]:
    """Every name and alias above, whether or not anything runs."""
    for service in SERVICES:
        yield service.name
        for network in service.networks:
            yield from re.findall(r"alias=([^,]+)", network)
    for plain in CONTAINERS:
        yield plain.name
        yield from plain.values("--network-alias", "--alias", "--hostname")
        yield from plain.links
    yield from ("host-1.example", "host-2.example", "Mine", *(f"{stack}_web" for stack in STACKS))


def _given(containers: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What Docker named by itself. One of a crowd is like the other."""
    crowded = 0
    for data in containers:
        if data["Name"].startswith("/crowd."):
            crowded += 1
            if crowded > 2:
                continue
        yield data["Name"].lstrip("/")
        yield data["Id"][:12]
