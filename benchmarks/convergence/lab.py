"""Service `web` on nodes of a real Swarm, and a container on another node that asks both resolvers for it."""

import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import IO

from benchmarks.convergence.report import DOCKER, OURS, Beginning, Ending
from benchmarks.convergence.watch import Watch
from benchmarks.processes import first_process, started
from benchmarks.swarm import DOCKER_TTL, NETWORK, laboratory, ttl
from tests.support.swarm import LAB, Box, Swarm, eventually

PROBER = Path(__file__).with_name("prober.py")
EVERY_MS = 3  # between two questions to each resolver
HOME, ASKER = "swarm01", "swarm02"  # the manager has neither
SERVICE = "web"
REPLICAS = 3
PATIENCE = 90.0  # seconds; what is still named then counts as never forgotten


class Lab:
    """Ends tasks, and notes what the resolvers said."""

    def __init__(self, swarm: Swarm, watch: Watch) -> None:
        self.swarm, self.watch = swarm, watch
        self.endings: list[Ending] = []
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

    def measure(self, way: str, boxes: list[Box], command: Callable[[], object], ending: int) -> None:
        """`command` ends so many of these tasks; which ones may be Swarm's choice."""
        pidfds = {os.pidfd_open(first_process(box.id)): box for box in boxes}
        at = time.monotonic()
        commanding = threading.Thread(target=command)
        commanding.start()
        died = _deaths(pidfds, ending)
        commanding.join()
        for box, death in died:
            gone = {who: self._gone(who, box.addresses[NETWORK]) for who in (OURS, DOCKER)}
            self.endings.append(Ending(way, at, death, gone))

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
    """The tasks on one node, the asker on another, and its prober. Raises CannotRun."""
    with laboratory(nodes=3) as swarm:
        on = ("--network", NETWORK, "--constraint")
        swarm.service(SERVICE, *on, f"node.hostname=={HOME}", "--replicas", str(REPLICAS),
                      "--restart-delay", "0s")  # fmt: skip
        swarm.service("asker", *on, f"node.hostname=={ASKER}")
        (asker,) = swarm.boxes("asker")
        eventually(lambda: 0 < ttl(asker, f"tasks.{SERVICE}") < DOCKER_TTL, "it is captured")
        with _probing(asker, {OURS: "53", DOCKER: _docker_port(asker)}) as watch:
            yield Lab(swarm, watch)


def _docker_port(asker: Box) -> str:
    """Where Docker's own resolver listens in the container's namespace, behind its redirect and ours."""
    rules = asker.inside("iptables", "-t", "nat", "-S", "DOCKER_OUTPUT")
    port = re.search(r"-p udp .*--to-destination 127\.0\.0\.11:(\d+)", rules)
    assert port, rules
    return port[1]


@contextmanager
def _probing(asker: Box, ports: Mapping[str, str]) -> Iterator[Watch]:
    inside = [*LAB, "node", asker.node, "--", "nsenter", f"--net={asker.namespace}"]
    command = [*inside, sys.executable, str(PROBER), f"tasks.{SERVICE}", str(EVERY_MS)]
    asked = [f"{who}={port}" for who, port in ports.items()]
    process = subprocess.Popen([*command, *asked], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watch = Watch()
    reading = threading.Thread(target=_read, args=(process.stdout, watch))
    reading.start()
    try:
        yield watch
    finally:
        process.terminate()
        process.wait()
        reading.join()


def _read(lines: IO[str], watch: Watch) -> None:
    for line in lines:
        one = json.loads(line)
        watch.add(one["who"], one["at"], frozenset(one["addresses"]))
