"""Probing this node's own tasks, from inside their namespaces (see `mesh.balance.health_state`).

Only a task's own node probes it: the work does not grow with the nodes, and the whole cluster is told what it
found, as a sign. A probe is a task of its own, waiting most of the time; PROBES_AT_ONCE keeps a node with
hundreds of them from doing them in one moment.
"""

import asyncio
import errno
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from mesh.balance.health_state import WELL_STATUSES, Pulse, Result
from mesh.catalog.model import Container
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.probe import Probe, probes
from mesh.errors import KernelError
from mesh.internal_errors import ERRORS
from mesh.net.netns import Namespace
from mesh.net.tasks import Tasks
from mesh.parsing import is_int, parse_int

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PROBES_AT_ONCE = 32
ANSWER_BYTES = 4096  # of an HTTP answer that are read: the status line is in the first
SPREAD = 0.2  # of the interval, by which probes are moved apart at random

PLANS = "plan of a probe"  # place of `mesh.internal_errors`

Unwell = Mapping[str, str]  # task id → service id


class Prober:
    """Subscribe `update` to the store. `on_change` is told all tasks that are not well when that changes."""

    def __init__(
        self,
        tasks: Tasks,
        on_change: Callable[[Unwell], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._tasks = tasks
        self._on_change = on_change
        self._draw = draw
        self._snapshot = Snapshot()
        self._running: dict[Probe, asyncio.Task[None]] = {}
        self._of_container: dict[str, frozenset[Probe]] = {}
        self._older: set[str] = set()  # containers that ran before we did
        self._pulses: dict[Probe, Pulse] = {}
        self._last: dict[Probe, Result] = {}
        self._room = asyncio.Semaphore(PROBES_AT_ONCE)
        self._told: Unwell = {}
        self.results: Counter[tuple[str, int, str]] = Counter()  # service name, port, result

    def start(self, snapshot: Snapshot) -> None:
        """Tasks that run already are taken as well until they fail: our own start must take none out."""
        self.restart(snapshot)

    def restart(self, snapshot: Snapshot) -> None:
        """Follow all containers anew. What is known of their tasks stays."""
        self._snapshot = snapshot
        self._older = set(snapshot.containers)
        for id_ in {*self._of_container, *snapshot.containers}:
            self._follow(id_, snapshot.containers.get(id_), new=False)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber: O(changed containers, and local containers of changed services)."""
        self._snapshot = new
        self._forget_results(new, change)
        for id_, container in change.containers.items():
            if container is None:
                self._older.discard(id_)
            self._follow(id_, container, new=id_ not in old.containers)
        changed = {id_ for id_, one in change.services.items() if _differs(old.services.get(id_), one)}
        if changed:
            for container in new.containers.values():
                if container.service in changed and container.id not in change.containers:
                    # Not known before: the container came ahead of it, or what tells of services was late.
                    late = container.service not in old.services
                    self._follow(container.id, container, new=late and container.id not in self._older)
        if self._running or self._told:
            # Not at once: what it leads to is another version, and this one is still being told.
            asyncio.get_running_loop().call_soon(self._tell)

    def _forget_results(self, new: Snapshot, change: Change) -> None:
        """Of services that are no more."""
        if not self.results or all(one is not None for one in change.services.values()):
            return
        names = {service.name for service in new.services.values()}
        for key in [key for key in self.results if key[0] not in names]:
            del self.results[key]

    def faults(self) -> list[str]:
        """Sentences for `mesh status`."""
        return [
            f"{probe.name}: task {probe.task} does not pass its probe of port {probe.port}"
            f" ({self._last.get(probe, 'not yet probed')})"
            for probe, pulse in self._pulses.items()
            if not pulse.well
        ]

    async def close(self) -> None:
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    # --- who is probed ---

    def _follow(self, id_: str, container: Container | None, *, new: bool) -> None:
        wanted = frozenset[Probe]()
        if container is not None:
            wanted = self._wanted(container)
        before = self._of_container.pop(id_, frozenset())
        if wanted:
            self._of_container[id_] = wanted
        unwell = [pulse for probe in before if not (pulse := self._pulses[probe]).well]
        new = new or any(pulse.new for pulse in unwell)  # asked in another way, it is still to be proven well
        for probe in before - wanted:
            self._running.pop(probe).cancel()
            del self._pulses[probe]
            self._last.pop(probe, None)
        for probe in wanted - before:
            self._pulses[probe] = Pulse(well=not new and not unwell, new=new)
            self._running[probe] = self._tasks.keep(partial(self._keep_probing, probe), f"probe {probe.task}")

    def _wanted(self, container: Container) -> frozenset[Probe]:
        service = self._snapshot.services.get(container.service)
        try:
            found = frozenset(probes(container, service, self._snapshot.ingress_network()))
        except Exception as error:  # noqa: BLE001 - the boundary of a container: others are probed
            ERRORS.report(PLANS, error, f"container {container.name}", "it is not probed")
            return frozenset()
        ERRORS.mended(PLANS, f"container {container.name}")
        return found

    def _tell(self) -> None:
        unwell = {probe.task: probe.service for probe, pulse in self._pulses.items() if not pulse.well}
        if unwell != self._told:
            self._told = unwell
            self._on_change(unwell)

    # --- probing ---

    async def _keep_probing(self, probe: Probe) -> None:
        pulse = self._pulses[probe]
        while True:
            async with self._room:
                result = await look(probe)
            self.results[probe.name, probe.port, result] += 1
            self._last[probe] = result
            if pulse.take(result):
                state = "passes" if pulse.well else "fails"
                logger.info("task %s %s its probe of port %d: %s", probe.task, state, probe.port, result)
                self._tell()
            await asyncio.sleep(self._pause(probe, pulse))

    def _pause(self, probe: Probe, pulse: Pulse) -> float:
        """A task that may change sides soon is looked at more often."""
        pause = probe.interval if pulse.well == (pulse.row == 0) else min(1.0, probe.interval)
        return pause * (1 + SPREAD * (self._draw() - 0.5))


def _differs(old: object, new: object) -> bool:
    return (getattr(old, "labels", None), getattr(old, "ports", None)) != (
        getattr(new, "labels", None),
        getattr(new, "ports", None),
    )


async def look(probe: Probe) -> Result:
    """One probe, bounded in time."""
    try:
        async with asyncio.timeout(probe.timeout):
            return await _look(probe)
    except TimeoutError:
        return Result.TIMEOUT
    except KernelError:  # the namespace is gone, and the container's end not told yet
        return Result.BROKEN
    except OSError as error:
        return Result.REFUSED if error.errno == errno.ECONNREFUSED else Result.BROKEN
    except Exception as error:  # noqa: BLE001 - the boundary of a probe: what a task answers ends no prober
        ERRORS.report("probe", error)
        return Result.BROKEN


async def _look(probe: Probe) -> Result:
    loop = asyncio.get_running_loop()
    with Namespace(probe.namespace).tcp_socket() as sock:
        # Docker drops what a task sends from its ingress address, but for answers of its published ports.
        sock.bind((LOOPBACK, 0))
        await loop.sock_connect(sock, (probe.address, probe.port))
        return await _ask(loop, sock, probe) if probe.path else Result.WELL


async def _ask(loop: asyncio.AbstractEventLoop, sock: socket.socket, probe: Probe) -> Result:
    host = f"{probe.address}:{probe.port}"
    request = (
        f"GET {probe.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mesh-probe\r\nConnection: close\r\n\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    answer = b""
    while b"\n" not in answer and len(answer) < ANSWER_BYTES:
        data = await loop.sock_recv(sock, ANSWER_BYTES)
        if not data:
            break
        answer += data
    words = answer.partition(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not is_int(words[1], 100, 999):
        return Result.BROKEN
    return Result.WELL if parse_int(words[1], 100, 999) in WELL_STATUSES else Result.STATUS
