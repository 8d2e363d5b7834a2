"""Inside a container's network namespace, through our redirect of 127.0.0.11:53."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.dnsperf import Load
from benchmarks.failure import CannotRun
from benchmarks.measure import Command, Launch, Role
from benchmarks.scenario import FEW, FIRST_PORT, PROBE, Comparison, Run, numbered_peers
from benchmarks.served import DOCKER_RESOLVER, names
from mesh.kernel.rulesets import DnsPorts, container_rules

ALIVE = "add element ip mesh alive { udp timeout 1h, tcp timeout 1h }"  # nobody refreshes it here
DNS_PORT = 53


def captured(run: Run) -> Iterator[Comparison]:
    """A namespace for each server, with the same rules. Ours stays outside and opens its sockets inside."""
    if os.geteuid() != 0:
        raise CannotRun("needs root, for network namespaces")
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            raise CannotRun(f"needs `{tool}`")
    load = Load(run.queries(names(FEW)), run.seconds)
    with ExitStack() as stack:
        servers: list[Launch] = []

        def add(name: str, argv: list[str], namespace: str, role: Role) -> None:
            ours = role is Role.OURS
            servers.append(Command(name, argv, DNS_PORT, PROBE, DOCKER_RESOLVER, namespace, role, ours))

        inside = stack.enter_context(redirected(FIRST_PORT))
        own = [sys.executable, "-m", "benchmarks.served", str(FIRST_PORT), "--namespace", inside]
        add("ours", own, inside, Role.OURS)
        for port, peer in numbered_peers():
            if peer.local is not None:
                argv = peer.local(run.place(port, DOCKER_RESOLVER), names(FEW))
                add(peer.name, argv, stack.enter_context(redirected(port)), Role.PEER)
        yield Comparison(f"captured: {FEW:,} names, {DOCKER_RESOLVER}:53 redirected", servers, load)


@contextmanager
def redirected(port: int) -> Iterator[str]:
    """A namespace as a captured container has, where 127.0.0.11:53 leads to `port`. Yields its path."""
    name = f"mesh-bench-{port}"
    rules = container_rules({}, DnsPorts(port, port), False)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "address", "add", f"{DOCKER_RESOLVER}/8", "dev", "lo")  # bind9 looks for it
        _run("ip", "netns", "exec", name, "nft", "-f", "-", stdin=f"{rules}\n{ALIVE}\n")
        yield f"/run/netns/{name}"
    finally:
        _run("ip", "netns", "delete", name)


def _run(*command: str, stdin: str = "") -> None:
    subprocess.run(command, input=stdin, text=True, check=True, timeout=30)
