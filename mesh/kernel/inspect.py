"""Reading back what the kernel holds of ours, for people who ask why traffic goes where it goes.

Only what was asked for is listed, so it takes as long with a thousand services as with one. What is found is
told as it is: whether it is what should be there, others decide (`mesh.telemetry.explain`).

All functions that read block, and read the calling thread's namespace; each fits `NamespaceWorker.run`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.devconf import InterfaceSetting
from mesh.kernel.devconf import read as read_setting
from mesh.kernel.netfilter import nft
from mesh.kernel.return_rules import MARK_MASK, MARK_PREFIX, RETURN_TABLE
from mesh.kernel.rulesets import ALIVE_SET, TABLE
from mesh.net import netlink, proc, routes

ABSENT = "No such file or directory"  # nft's words for a table, chain, map or element that is not there
TURNS_MAX = 65_536  # places of a map that are looked at

_ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
_PLACE = re.compile(r"\b(\d+)(?:-(\d+))? : ((?:\d{1,3}\.){3}\d{1,3})\b")
_PORT = re.compile(r"[}\d]:(\d+)\s*$")
_NAMED = re.compile(r"map @(\w+)")
_GOTO = re.compile(r" : (?:goto|jump) (\w+)")
_MARKED = re.compile(r"((?:[0-9a-f]{2}:){5}[0-9a-f]{2}) : (0x[0-9a-f]+)")

Ask = Callable[[str], str]  # an nft `list` or `get` → what it prints, "" when there is no such thing


@dataclass(frozen=True, slots=True)
class Leading:
    """What a rule of ours does with a new connection. `turns`: each address as often as it has a place."""

    how: str
    turns: tuple[str, ...]
    port: int = 0  # 0: the port stays as it is
    masqueraded: bool = False  # marked so, whatever the task can do

    def share(self, address: str) -> float:
        """Of new connections, 0 … 1."""
        return self.turns.count(address) / len(self.turns) if self.turns else 0.0


@dataclass(frozen=True, slots=True)
class HostPort:
    """A published port in the host's table."""

    table: bool
    leads_to: str = ""  # address of the ingress namespace, "" when the port is not led there
    orphaned: bool = False  # is led there only while nobody is alive to relay it
    redirected: int = 0  # local port of a relay, 0 for none
    alive: bool = False
    listening: tuple[str, ...] = ()  # addresses that somebody listens on with this port


@dataclass(frozen=True, slots=True)
class SandboxPort:
    """A published port in the ingress namespace's table."""

    table: bool
    leading: Leading | None = None
    kept: frozenset[str] = frozenset()  # tasks that are sent the client's own address
    alive: bool = False


@dataclass(frozen=True, slots=True)
class ContainerVip:
    """A virtual IP in a container's table."""

    table: bool
    leading: Leading | None = None
    refused: bool = False  # there is no task: refused at once
    alive: bool = False


@dataclass(frozen=True, slots=True)
class WayBack:
    """What a task's namespace has for answers to outside clients."""

    table: bool
    marks: Mapping[str, int] = field(default_factory=dict)  # MAC address of an entry → its mark
    routed: frozenset[int] = frozenset()  # marks that a rule leads to a table of their own
    rp_filter: Mapping[str, int] = field(default_factory=dict)  # by interface

    def leads(self, mac: str) -> bool:
        """Is what came from the entry with this MAC address answered through it?"""
        return self.table and self.marks.get(mac) in self.routed


# --- reading, in the namespace concerned --------------------------------------------------------------------


def host_port(published: int, protocol: str) -> HostPort:
    listening = tuple(
        sorted({one.address for one in proc.bound(protocol) if one.port == published})
    )  # of SCTP nothing is listed
    return _host_port(_listed, published, protocol, listening)


def sandbox_port(published: int, protocol: str) -> SandboxPort:
    return _sandbox_port(_listed, published, protocol)


def container_vips(vips: tuple[str, ...]) -> Mapping[str, ContainerVip]:
    """Several in one visit."""
    return {vip: _container_vip(_listed, vip) for vip in vips}


def way_back() -> WayBack:
    listed = _listed(f"list map ip {RETURN_TABLE} entries")
    routed = frozenset(mark for mark, _ in routes.led(MARK_PREFIX, MARK_MASK))
    return WayBack(bool(listed), marks_in(listed), routed, _rp_filters())


def _rp_filters() -> dict[str, int]:
    found = {}
    for interface in {one.interface for one in netlink.addresses()} | {"all"}:
        try:
            found[interface] = read_setting(interface, InterfaceSetting.rp_filter)
        except NamespaceGone:
            continue
    return found


def _listed(text: str) -> str:
    """An `Ask`."""
    try:
        return nft.run(text + "\n")
    except KernelError as error:
        if ABSENT in str(error):
            return ""
        raise


# --- what nft prints → values. Pure but for `ask` -----------------------------------------------------------


def _host_port(ask: Ask, published: int, protocol: str, listening: tuple[str, ...]) -> HostPort:
    lead = ask(f"list chain ip {TABLE} lead")
    led = bool(ask(f"get element ip {TABLE} published {{ {protocol} . {published} }}"))
    orphaned = bool(ask(f"get element ip {TABLE} relayed {{ {protocol} . {published} }}"))
    to = _ADDRESS.search(lead.partition("@published")[2])
    redirected = 0
    if protocol == "tcp":
        redirected = local_port_in(ask(f"get element ip {TABLE} redirected {{ {published} }}"), published)
    leads_to = to.group() if led and to else ""
    return HostPort(bool(lead), leads_to, orphaned, redirected, _alive(ask), listening)


def _sandbox_port(ask: Ask, published: int, protocol: str) -> SandboxPort:
    kept = ask(f"list set ip {TABLE} kept")
    verdict = ask(f"get element ip {TABLE} ports {{ {protocol} . {published} }}")
    present = kept or ask(f"list map ip {TABLE} ports")
    return SandboxPort(bool(present), _led_to(ask, verdict), frozenset(_ADDRESS.findall(kept)), _alive(ask))


def _container_vip(ask: Ask, vip: str) -> ContainerVip:
    verdict = ask(f"get element ip {TABLE} vips {{ {vip} }}")
    leading = _led_to(ask, verdict)
    refused = leading is None and bool(ask(f"get element ip {TABLE} empty {{ {vip} }}"))
    present = leading is not None or refused or bool(ask(f"list chain ip {TABLE} output"))
    return ContainerVip(present, leading, refused, _alive(ask))


def _led_to(ask: Ask, verdict: str) -> Leading | None:
    found = _GOTO.search(verdict)
    chain = ask(f"list chain ip {TABLE} {found.group(1)}") if found else ""
    return leading_in(chain, ask) if chain else None


def _alive(ask: Ask) -> bool:
    return "elements" in ask(f"list set ip {TABLE} {ALIVE_SET}")


def leading_in(chain: str, ask: Ask) -> Leading | None:
    """The last `dnat to` of a listed chain; None when it has none. Maps that it names are asked for."""
    rule = next((line for line in reversed(chain.splitlines()) if " dnat to " in f" {line.strip()} "), "")
    before, _, target = f" {rule.strip()}".partition(" dnat to ")
    if not rule:
        return None
    named = _NAMED.search(target)
    places = ask(f"list map ip {TABLE} {named.group(1)}") if named else target
    port = _PORT.search(target)
    return Leading(
        _how(target), _turns(places), int(port.group(1)) if port else 0, masqueraded="ct mark set" in before
    )


def _turns(text: str) -> tuple[str, ...]:
    found = list[str]()
    for first, last, address in _PLACE.findall(text):
        found += [address] * min(int(last or first) - int(first) + 1, TURNS_MAX)
    return tuple(found) or tuple(_ADDRESS.findall(text)[:1])


def _how(target: str) -> str:
    for sign, words in (
        ("numgen inc", "in turn"),
        ("numgen random", "at random"),
        ("jhash", "by client address"),
        ("symhash", "by connection"),
    ):
        if sign in target:
            return words
    return "the only one"


def local_port_in(listed: str, published: int) -> int:
    """Of the map `redirected`; 0 when the published port is not in it."""
    found = re.search(rf"\b{published} : (\d+)", listed)
    return int(found.group(1)) if found else 0


def marks_in(listed: str) -> dict[str, int]:
    """Of the map `entries`."""
    return {mac: int(mark, 16) for mac, mark in _MARKED.findall(listed)}
