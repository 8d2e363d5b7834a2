"""Taking everything of ours out of a node's kernel, and proving that it is gone (`mesh cleanup`)."""

import os
from dataclasses import dataclass

from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.devconf import InterfaceSetting, write
from mesh.kernel.firewall.forward_chain import remove_all
from mesh.kernel.firewall.listener_rules import DELETE_LISTENERS, LISTENER_TABLE
from mesh.kernel.ingress import BRIDGE, NETNS_DIR
from mesh.kernel.loopback_rules import DELETE_LOOPBACK, LIST_KEPT, LIST_LOOPBACK
from mesh.kernel.netfilter import nft
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


async def cleanup(netns_dir: str = NETNS_DIR) -> Removed:
    """Remove our tables and routes from the host and every Docker namespace, and our rules in iptables.

    It is a command of its own: it blocks the event loop while it works.
    """
    removed, left = [], []
    for name, namespace in _namespaces(netns_dir):
        try:
            if namespace.call(_clear_host if name == HOST else _clear):
                removed.append(name)
            if namespace.call(present) or namespace.call(return_path_present):
                left.append((name, "something of ours is still there"))
        except NamespaceGone:
            continue
        except KernelError as error:
            left.append((name, str(error)))
    rules = 0
    try:
        rules = await remove_all()
    except KernelError as error:
        left.append(("firewall", str(error)))
    return Removed(tuple(removed), rules, tuple(left))


def _clear() -> bool:
    return clear() | take_out()


def _clear_host() -> bool:
    """Here a setting goes with the tables: without them it would let containers reach 127.0.0.1."""
    loopback = _listed(LIST_LOOPBACK)
    if (loopback or present()) and not _listed(LIST_KEPT):
        _end_localnet()
    found = _clear() | loopback
    nft.run(DELETE_LOOPBACK)
    if f"table inet {LISTENER_TABLE}\n" in nft.run("list tables inet\n"):
        found = True
        nft.run(DELETE_LISTENERS)
    return found


def _end_localnet() -> None:
    try:
        write(BRIDGE, {InterfaceSetting.route_localnet: 0})
    except NamespaceGone:
        pass  # the bridge has gone, and the setting with it


def _listed(listing: str) -> bool:
    try:
        nft.run(listing)
    except KernelError:
        return False
    return True


def _namespaces(netns_dir: str) -> list[tuple[str, Namespace]]:
    try:
        names = sorted(os.listdir(netns_dir))
    except OSError:
        names = []  # no Docker here (any more): the host's own is still looked at
    inside = [(name, Namespace(os.path.join(netns_dir, name))) for name in names]
    return [(HOST, Namespace(None)), *inside]
