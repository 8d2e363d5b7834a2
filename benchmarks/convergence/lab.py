"""Service `web` on a node of a real Swarm; who asks for it and connects to it, there and on another node."""

import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import IO, Any

from benchmarks.convergence.connections import Attempt, Connections, Victim
from benchmarks.convergence.report import DOCKER, OURS, Beginning, Ending, Sent
from benchmarks.convergence.watch import Watch
from benchmarks.processes import first_process, started
from benchmarks.program import ROOT
from benchmarks.swarm import DOCKER_TTL, NETWORK, laboratory, ttl
from tests.support.swarm import FRONT, LAB, Box, Swarm, eventually

TASK = Path(__file__).with_name("served.py")
EVERY_MS = 3  # between two questions to each resolver
CONNECT_EVERY_MS = 10  # between two connections of each path; Docker's engines share the machine
HOME, ASKER = "swarm01", "swarm02"  # the manager has neither
SERVICE = "web"
REPLICAS = 3
PORT = 9000  # of the tasks, and published
SHORT_ID = 12  # characters of a container's id that its hostname is
NEXT_END = 0.5  # seconds after which the end of another task is another event
AT_HOME, AWAY = "same node", "other node"
PATIENCE = 90.0  # seconds; what is still named then counts as never forgotten


class Lab:
    """Ends tasks, and notes what the resolvers said and where connections came to."""

    def __init__(self, swarm: Swarm, watch: Watch, connections: Connections) -> None:
        self.swarm, self.watch, self.connections = swarm, watch, connections
        self.endings: list[Ending] = []
        self.sent: list[Sent] = []
        self.beginnings: list[Beginning] = []
        self._settled_at = inf  # tasks that began before are none that were seen to begin

    def settle(self, replicas: int = REPLICAS) -> list[Box]:
        """Until as many run, and both resolvers name them (ours nothing else). Returns them."""
        self.swarm.settled(SERVICE, replicas)
        boxes = self.swarm.boxes(SERVICE)
        wanted = {box.addresses[NETWORK] for box in boxes}
        eventually(lambda: self.watch.now(OURS) == wanted, f"ours names {wanted}", PATIENCE)
        eventually(lambda: self.watch.now(DOCKER) >= wanted, f"Docker's names {wanted}", PATIENCE)
        for box in boxes:
            self._note_beginning(box)
        self._settled_at = time.monotonic()
        return boxes

    def _note_beginning(self, box: Box) -> None:
        began = started(first_process(box.id))
        if began < self._settled_at:
            return
        address = box.addresses[NETWORK]
        known = {who: self.watch.known(who, address, self._settled_at) for who in (OURS, DOCKER)}
        if all(at is not None for at in known.values()):
            self.beginnings.append(Beginning(began, {who: at for who, at in known.items() if at is not None}))

    def measure(
        self,
        way: str,
        boxes: list[Box],
        command: Callable[[], object],
        ending: int,
        *,
        home_stays: bool = True,
    ) -> None:
        """`command` ends so many of these tasks; which ones may be Swarm's choice. `home_stays`: their node
        goes on, and with it the clients that are there."""
        pidfds = {os.pidfd_open(first_process(box.id)): box for box in boxes}
        at = time.monotonic()
        commanding = threading.Thread(target=command)
        commanding.start()
        died = _deaths(pidfds, ending)
        commanding.join()
        for box, death in died:
            gone = {who: self._gone(who, box.addresses[NETWORK]) for who in (OURS, DOCKER)}
            self.endings.append(Ending(way, at, death, gone))
            until = min((other for _, other in died if other > death + NEXT_END), default=inf)
            victim = Victim(box.id[:SHORT_ID], box.addresses[NETWORK], until, home_stays)
            self._note_connections(way, victim, at, death)

    def _note_connections(self, way: str, victim: Victim, at: float, death: float) -> None:
        by_client: dict[str, dict[str, str]] = {}  # where → who leads → path
        for path in self.connections.paths():
            where, _, who = path.partition("|")
            if victim.others or AT_HOME not in where:
                by_client.setdefault(where, {})[who] = path
        end = time.monotonic() + PATIENCE
        for where, paths in sorted(by_client.items()):
            last = {who: self._last(path, victim, at, end) for who, path in paths.items()}
            failed = {who: self.connections.failed(path, victim, at) for who, path in paths.items()}
            self.sent.append(Sent(way, where, death, last, failed))

    def _last(self, path: str, victim: Victim, since: float, end: float) -> float:
        while time.monotonic() < end:
            found = self.connections.last(path, victim, since, time.monotonic())
            if found is not None:
                return found
            time.sleep(0.1)
        return inf

    def _gone(self, who: str, address: str) -> float:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = self.watch.gone(who, address, time.monotonic())
            if found is not None:
                return found
            time.sleep(0.1)
        return inf


def _deaths(pidfds: Mapping[int, Box], count: int) -> list[tuple[Box, float]]:
    """When the first so many of the processes were gone. Closes all."""
    died: dict[int, float] = {}
    try:
        while len(died) < count:
            ready, _, _ = select.select([one for one in pidfds if one not in died], [], [], PATIENCE)
            if not ready:
                raise AssertionError(f"{len(died)} of {count} tasks that were to end have ended")
            died.update(dict.fromkeys(ready, time.monotonic()))
        return [(pidfds[one], at) for one, at in died.items()]
    finally:
        for one in pidfds:
            os.close(one)


@contextmanager
def converging() -> Iterator[Lab]:
    """The tasks on one node, clients there, on another and outside, and their probers. Raises CannotRun."""
    with laboratory(nodes=3) as swarm, ExitStack() as probing:
        on = ("--network", NETWORK, "--constraint")
        swarm.service(SERVICE, *on, f"node.hostname=={HOME}", "--replicas", str(REPLICAS),
                      "--restart-delay", "0s", "--publish", f"{PORT}:{PORT}", "--entrypoint", "python3",
                      command=("-c", TASK.read_text()))  # fmt: skip
        swarm.service("asker", *on, f"node.hostname=={ASKER}")
        swarm.service("neighbour", *on, f"node.hostname=={HOME}")
        (asker,), (neighbour,) = swarm.boxes("asker"), swarm.boxes("neighbour")
        for box in (asker, neighbour):
            _await_captured(box)
        watch, connections = Watch(), Connections()
        asking = _inside(asker, "prober", f"tasks.{SERVICE}", str(EVERY_MS),
                         f"{OURS}=53", f"{DOCKER}={_docker_port(asker)}")  # fmt: skip

        def said(one: dict[str, Any]) -> None:
            watch.add(one["who"], one["at"], frozenset(one["addresses"]))

        def reached(one: dict[str, Any]) -> None:
            connections.add(one["who"], Attempt(one["at"], one["task"], one["failure"], one["to"]))

        probing.enter_context(_reading(asking, said))
        for command in _connectors(swarm, asker, neighbour):
            probing.enter_context(_reading(command, reached))
        yield Lab(swarm, watch, connections)


def _await_captured(box: Box) -> None:
    eventually(lambda: 0 < ttl(box, f"tasks.{SERVICE}") < DOCKER_TTL, f"{box.name} is captured")


def _connectors(swarm: Swarm, asker: Box, neighbour: Box) -> Iterator[list[str]]:
    """From containers by the virtual IP and as Docker would have it, from outside by the published port."""
    vip, every = _virtual_ip(swarm), str(CONNECT_EVERY_MS)
    for where, box in ((AWAY, asker), (AT_HOME, neighbour)):
        by_name = f"tasks.{SERVICE}@{_docker_port(box)}:{PORT}"
        yield _inside(box, "connector", every, f"{where}|{OURS}={vip}:{PORT}", f"{where}|{DOCKER}={by_name}")
    entries = {AWAY: FRONT[ASKER], AT_HOME: FRONT[HOME]}
    paths = [f"published, {where}|{OURS}={address}:{PORT}" for where, address in entries.items()]
    yield [*LAB, "client", "--", *_program("connector", every, *paths)]


def _virtual_ip(swarm: Swarm) -> str:
    """Of the service, on the network that is not for published ports."""
    shown = swarm.docker("service", "inspect", "-f", "{{json .Endpoint.VirtualIPs}}", SERVICE)
    network = swarm.docker("network", "inspect", "-f", "{{.Id}}", NETWORK)
    (address,) = (one["Addr"] for one in json.loads(shown) if one["NetworkID"] == network)
    return str(address).partition("/")[0]


def _docker_port(asker: Box) -> str:
    """Where Docker's own resolver listens in the container's namespace, behind its redirect and ours."""
    rules = asker.inside("iptables", "-t", "nat", "-S", "DOCKER_OUTPUT")
    port = re.search(r"-p udp .*--to-destination 127\.0\.0\.11:(\d+)", rules)
    assert port, rules
    return port[1]


def _inside(box: Box, program: str, *argv: str) -> list[str]:
    into = [*LAB, "node", box.node, "--", "nsenter", f"--net={box.namespace}"]
    return [*into, *_program(program, *argv)]


def _program(name: str, *argv: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.convergence.{name}", *argv]


@contextmanager
def _reading(command: list[str], take: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Each line that the prober prints, on a thread of its own."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    reading = threading.Thread(target=_read, args=(process.stdout, take))
    reading.start()
    try:
        yield
    finally:
        process.stdin.close()  # it ends then, on whichever node it is
        process.wait(PATIENCE)
        reading.join()


def _read(lines: IO[str], take: Callable[[dict[str, Any]], None]) -> None:
    for line in lines:
        take(json.loads(line))
