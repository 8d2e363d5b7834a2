"""How soon the truth is told: a task ends or begins, and a container on another node asks all the time.

    python -m benchmarks.convergence [--repeat 10]        (root; three nodes of tests/lab)

Both resolvers of one container, ours and Docker's own, are asked for `tasks.web` every few milliseconds while
tasks of `web` end in every way that they do. For each it is measured when the last answer named it: after the
operator's command, and after its process was gone (negative: before, as it should be).
"""

import argparse
import json
import os
import re
import select
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks.figures import percentile
from benchmarks.processes import first_process, started
from benchmarks.report import Table
from tests.support.swarm import LAB, Box, Swarm, eventually

OUT = Path(__file__).parent / "out" / "convergence.json"
PROBER = Path(__file__).with_name("prober.py")
EVERY_MS = 3
HOME, OTHER, ASKER = "swarm01", "swarm00", "swarm02"  # of the tasks, of their successors, of who asks
OURS, DOCKER = "ours", "docker"
PATIENCE = 90.0  # seconds; a dead node's records live in Docker's gossip for that long at most


@dataclass
class Watch:
    """What the prober saw: every change of each resolver's answer."""

    seen: list[tuple[float, str, frozenset[str]]] = field(default_factory=list)

    def read(self, lines: IO[str]) -> None:
        for line in lines:
            one = json.loads(line)
            self.seen.append((one["at"], one["who"], frozenset(one["addresses"])))

    def now(self, who: str) -> frozenset[str]:
        return next((names for _, label, names in reversed(self.seen) if label == who), frozenset())

    def gone(self, who: str, address: str, after: float) -> float | None:
        """When the first answer came that did not name the address any more; None: not yet."""
        for at, label, names in self.seen:
            if label == who and at >= after and address not in names:
                return at
        return None

    def known(self, who: str, address: str) -> float | None:
        """When the first answer named it."""
        return next((at for at, label, names in self.seen if label == who and address in names), None)


@dataclass(frozen=True)
class Sample:
    """Seconds. `after_command` and `after_end`: until the last answer that named the task."""

    way: str
    who: str
    after_command: float
    after_end: float


class Lab:
    """Service `web` on one node, a container that asks on another."""

    def __init__(self, swarm: Swarm, watch: Watch) -> None:
        self.swarm, self.watch = swarm, watch
        self.samples: list[Sample] = []
        self.begun: dict[str, list[float]] = {OURS: [], DOCKER: []}

    def measure(self, way: str, boxes: list[Box], command: Callable[[], object], ending: int = 0) -> None:
        """`command` ends so many of these tasks, all of them if 0; which ones may be Swarm's choice."""
        ends = {os.pidfd_open(first_process(box.id)): box for box in boxes}
        at = time.monotonic()
        worker = threading.Thread(target=command)
        worker.start()
        died = _deaths(ends, ending or len(boxes))
        worker.join()
        for pidfd, death in died.items():
            address = ends[pidfd].addresses["bench"]
            for who in (OURS, DOCKER):
                what = f"{who} does not name {address} any more"
                gone = eventually(partial(self.watch.gone, who, address, at), what, PATIENCE)
                assert gone is not None
                self.samples.append(Sample(way, who, gone - at, gone - death))

    def settle(self, replicas: int) -> list[Box]:
        """Until both resolvers name all that runs, and nothing else; notes how soon new tasks were known."""
        self.swarm.settled("web", replicas)
        boxes = self.swarm.boxes("web")
        wanted = {box.addresses["bench"] for box in boxes}
        for who in (OURS, DOCKER):
            eventually(lambda w=who: self.watch.now(w) == wanted, f"{who} names {wanted}", PATIENCE)  # type: ignore[misc]
        for box in boxes:
            began = started(first_process(box.id))
            for who in (OURS, DOCKER):
                known = self.watch.known(who, box.addresses["bench"])
                if known is not None and began > self.since:
                    self.begun[who].append(known - began)
        self.since = time.monotonic()
        return boxes

    since = float("inf")


def _deaths(pidfds: Iterable[int], count: int) -> dict[int, float]:
    """When the first so many of the processes were gone. Closes all."""
    died: dict[int, float] = {}
    while len(died) < count:
        ready, _, _ = select.select([one for one in pidfds if one not in died], [], [], PATIENCE)
        if not ready:
            raise AssertionError("a task that was to end has not")
        died.update(dict.fromkeys(ready, time.monotonic()))
    for one in pidfds:
        os.close(one)
    return died


# --- the ways to end ----------------------------------------------------------------------------------------


def run(lab: Lab, repeat: int) -> None:
    swarm, node = lab.swarm, lab.swarm.docker
    for _ in range(repeat):
        victim = lab.settle(3)[0]
        lab.measure("docker rm -f", [victim], lambda v=victim: node("rm", "-f", v.id, node=v.node))  # type: ignore[misc]
    for _ in range(max(1, repeat // 2)):
        boxes = lab.settle(3)
        lab.measure("service scale 3 → 2", boxes, lambda: node("service", "scale", "-d", "web=2"), ending=1)
        lab.settle(2)
        node("service", "scale", "-d", "web=3")
    boxes = lab.settle(3)
    lab.measure("rolling update", boxes, lambda: node("service", "update", "-d", "--force", "web"))
    boxes = lab.settle(3)
    lab.measure("node drain", boxes, lambda: node("node", "update", "--availability", "drain", HOME))
    lab.settle(3)
    node("node", "update", "--availability", "active", HOME)
    eventually(lambda: swarm.ready(HOME), f"{HOME} is ready again")
    node("service", "update", "-d", "--constraint-rm", f"node.hostname!={ASKER}",
         "--constraint-add", f"node.hostname=={HOME}", "web")  # fmt: skip
    eventually(lambda: {box.node for box in swarm.boxes("web")} == {HOME}, "they are back", PATIENCE)
    boxes = lab.settle(3)
    lab.measure("power cut of the node", boxes, lambda: swarm.lab("kill", HOME))


@contextmanager
def lab() -> Iterator[Lab]:
    swarm = Swarm()
    try:
        swarm.lab("setup", limit=600)
        swarm.lab("up", limit=600)
        swarm.lab("deploy", limit=600)
        swarm.network("bench")
        on = ("--network", "bench", "--constraint")
        swarm.service("web", *on, f"node.hostname!={ASKER}", "--constraint", f"node.hostname!={OTHER}",
                      "--replicas", "3")  # fmt: skip
        swarm.docker("service", "update", "-d", "--constraint-rm", f"node.hostname!={OTHER}", "web")
        swarm.service("asker", *on, f"node.hostname=={ASKER}")
        (box,) = swarm.boxes("asker")
        eventually(lambda: box.dig("tasks.web").answers[0][1] < 600, "it is captured")
        rules = box.inside("iptables", "-t", "nat", "-S", "DOCKER_OUTPUT")
        port = re.search(r"-p udp .*--to-destination 127\.0\.0\.11:(\d+)", rules)
        assert port, rules
        watch = Watch()
        with _probing(box, port[1]) as lines:
            reading = threading.Thread(target=watch.read, args=(lines,), daemon=True)
            reading.start()
            yield Lab(swarm, watch)
    finally:
        swarm.lab("down", check=False)


@contextmanager
def _probing(box: Box, docker_port: str) -> Iterator[IO[str]]:
    inside = [*LAB, "node", box.node, "--", "nsenter", f"--net={box.namespace}"]
    command = [*inside, sys.executable, str(PROBER), "tasks.web", str(EVERY_MS)]
    process = subprocess.Popen(
        [*command, f"{OURS}=53", f"{DOCKER}={docker_port}"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.terminate()
        process.wait()


# --- the report ---------------------------------------------------------------------------------------------


def tables(measured: Lab) -> list[Table]:
    rows = []
    for way in dict.fromkeys(sample.way for sample in measured.samples):
        for who in (OURS, DOCKER):
            own = [sample for sample in measured.samples if (sample.way, sample.who) == (way, who)]
            rows.append((way, who, len(own), *_shown([s.after_end for s in own]),
                         *_shown([s.after_command for s in own])))  # fmt: skip
    head = ("way", "resolver", "n", "end: median ms", "p99", "max", "command: median ms", "p99 ", "max ")
    begun = [(who, len(times), *_shown(times)) for who, times in measured.begun.items() if times]
    raw = [vars_of(sample) for sample in measured.samples]
    return [
        Table("until the last answer that names a task that ends", head, rows, raw),
        Table(
            "until the first answer that names a task, from its process' start",
            ("resolver", "n", "median ms", "p99", "max"),
            begun,
            measured.begun,
        ),
    ]


def vars_of(sample: Sample) -> dict[str, object]:
    return {"way": sample.way, "who": sample.who, "command": sample.after_command, "end": sample.after_end}


def _shown(seconds: list[float]) -> list[str]:
    return [
        f"{one * 1e3:,.0f}" for one in (statistics.median(seconds), percentile(seconds, 0.99), max(seconds))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convergence", description="How soon truth is told"
    )
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("benchmarks.convergence: needs root, for the lab")
    with lab() as measured:
        run(measured, options.repeat)
    found = tables(measured)
    print("\n\n".join(map(str, found)))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([table.document() for table in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
