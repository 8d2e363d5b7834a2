"""Taking everything of ours out of a node's kernel, and proving that it is gone (`mesh cleanup`)."""

import os
from dataclasses import dataclass

from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.firewall import Firewall
from mesh.kernel.ingress import NETNS_DIR
from mesh.kernel.return_paths import return_path_present, take_out
from mesh.kernel.table import clear, present
from mesh.net.netns import Namespace

HOST = "host"


@dataclass(frozen=True, slots=True)
class Removed:
    """What was there, and what could not be removed (namespace → why)."""

    tables: tuple[str, ...] = ()  # "host", or the namespace's name
    firewall_rules: int = 0
    left: tuple[tuple[str, str], ...] = ()

    @property
    def clean(self) -> bool:
        return not self.left


async def cleanup(netns_dir: str = NETNS_DIR, firewall: Firewall | None = None) -> Removed:
    """Remove our tables and routes from the host and every Docker namespace, and our firewall rule.

    It is a command of its own: it blocks the event loop while it works.
    """
    removed, left = [], []
    for name, namespace in _namespaces(netns_dir):
        try:
            if namespace.call(lambda: clear() | take_out()):
                removed.append(name)
            if namespace.call(present) or namespace.call(return_path_present):
                left.append((name, "something of ours is still there"))
        except NamespaceGone:
            continue
        except KernelError as error:
            left.append((name, str(error)))
    rules = 0
    try:
        rules = await (firewall or Firewall()).remove()
    except KernelError as error:
        left.append(("firewall", str(error)))
    return Removed(tuple(removed), rules, tuple(left))


def _namespaces(netns_dir: str) -> list[tuple[str, Namespace]]:
    try:
        names = sorted(os.listdir(netns_dir))
    except OSError:
        names = []  # no Docker here (any more): the host's own is still looked at
    inside = [(name, Namespace(os.path.join(netns_dir, name))) for name in names]
    return [(HOST, Namespace(None)), *inside]
