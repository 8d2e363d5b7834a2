"""Network namespaces for tests that need the real kernel: made with `ip`, always removed."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import pytest

from mesh.net.netns import Namespace

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")
DEADLINE = 20.0


class Lab:
    """Namespaces joined by veth pairs to a bridge in a namespace of its own; nothing touches the host."""

    def __init__(self) -> None:
        self._prefix = f"meshtest-{uuid.uuid4().hex[:6]}"
        self._made: list[str] = []

    def namespace(self, name: str) -> Namespace:
        full = f"{self._prefix}-{name}"
        ip("netns", "add", full)
        self._made.append(full)
        ip("-n", full, "link", "set", "lo", "up")
        return Namespace(f"/var/run/netns/{full}")

    def switch(self, name: str) -> Namespace:
        """A bridge, for `plug`."""
        made = self.namespace(name)
        ip("-n", of(made), "link", "add", "br0", "type", "bridge")
        ip("-n", of(made), "link", "set", "br0", "up")
        return made

    def plug(self, inside: Namespace, interface: str, address: str, switch: Namespace) -> None:
        """Give `inside` an interface on the switch's bridge."""
        end = f"v{uuid.uuid4().hex[:8]}"
        ip(
            "-n",
            of(switch),
            "link",
            "add",
            end,
            "type",
            "veth",
            "peer",
            "name",
            interface,
            "netns",
            of(inside),
        )
        ip("-n", of(switch), "link", "set", end, "master", "br0", "up")
        ip("-n", of(inside), "addr", "add", address, "dev", interface)
        ip("-n", of(inside), "link", "set", interface, "up")

    def remove(self, namespace: Namespace) -> None:
        ip("netns", "del", of(namespace))
        self._made.remove(of(namespace))

    def close(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def of(namespace: Namespace) -> str:
    assert namespace.path is not None
    return os.path.basename(namespace.path)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def inside(namespace: Namespace, *command: str) -> str:
    """Run a program inside and return what it prints."""
    done = subprocess.run(
        ["nsenter", f"--net={namespace.path}", *command], check=True, capture_output=True, text=True
    )
    return done.stdout


@contextmanager
def laboratory() -> Iterator[Lab]:
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


def eventually(check: Callable[[], bool], what: str) -> None:
    """Poll until it holds; fail after the deadline."""
    end = monotonic() + DEADLINE
    while not check():
        assert monotonic() < end, f"not within {DEADLINE} s: {what}"
        sleep(0.05)
