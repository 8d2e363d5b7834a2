"""The DNS servers that ours is measured beside, each told to do the same work on one core.

Debian's packages, run from a folder of their own in the foreground: no service is started, no file of the
system is read or written. One that is not installed is left out.

A *local* server answers the names from memory; a *forwarding* one has them from another one and keeps them.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("dnsperf", "dnsmasq", "unbound", "knot", "bind9")
ZONE = "bench"
LONG_TTL = 86_400  # seconds: nothing that is forwarded runs out while it is measured

# Absolute name without the trailing dot → IPv4 addresses.
Names = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the folder that is its own."""

    folder: Path
    address: str
    port: int


@dataclass(frozen=True)
class Peer:
    """Each function writes what the server needs into its folder and returns how to start it.

    `forwarding` gets the port of the server on 127.0.0.1 that has the names. `tcp`: it keeps connections.
    """

    name: str
    program: str
    local: Callable[[Place, Names], list[str]] | None = None
    forwarding: Callable[[Place, int], list[str]] | None = None
    tcp: bool = True

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None


def _records(names: Names) -> Iterator[tuple[str, str]]:
    return ((name, address) for name, addresses in names.items() for address in addresses)


# --- dnsmasq ------------------------------------------------------------------------------------------------


def _dnsmasq(place: Place) -> list[str]:
    return [
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
        *(f"--port={place.port}", f"--listen-address={place.address}", "--bind-interfaces"),
        *("--cache-size=10000", "--pid-file=", "--log-facility=/dev/null"),
    ]


def _dnsmasq_local(place: Place, names: Names) -> list[str]:
    hosts = place.folder / "hosts"
    hosts.write_text("".join(f"{address} {name}\n" for name, address in _records(names)))
    return [*_dnsmasq(place), f"--addn-hosts={hosts}"]


def _dnsmasq_forwarding(place: Place, upstream: int) -> list[str]:
    return [*_dnsmasq(place), f"--server=127.0.0.1#{upstream}"]


# --- unbound ------------------------------------------------------------------------------------------------


def _unbound(place: Place, server: str, rest: str = "") -> list[str]:
    config = place.folder / "unbound.conf"
    config.write_text(
        f"server:\n  interface: {place.address}@{place.port}\n  num-threads: 1\n  do-daemonize: no\n"
        '  chroot: ""\n  username: ""\n  pidfile: ""\n  use-syslog: no\n  logfile: "/dev/null"\n'
        f'  directory: "{place.folder}"\n{server}remote-control:\n  control-enable: no\n{rest}'
    )
    return ["unbound", "-d", "-c", str(config)]


def _unbound_local(place: Place, names: Names) -> list[str]:
    data = "".join(f'  local-data: "{name}. 5 IN A {address}"\n' for name, address in _records(names))
    return _unbound(place, f'  local-zone: "{ZONE}." static\n{data}')


def _unbound_forwarding(place: Place, upstream: int) -> list[str]:
    server = '  do-not-query-localhost: no\n  module-config: "iterator"\n'
    return _unbound(place, server, f'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{upstream}\n')


# --- knot ---------------------------------------------------------------------------------------------------


def _zone(place: Place, names: Names, ttl: int) -> Path:
    zone = place.folder / "zone"
    head = (
        f"$TTL {ttl}\n{ZONE}. IN SOA ns.{ZONE}. h.{ZONE}. 1 60 60 60 5\n"
        f"{ZONE}. IN NS ns.{ZONE}.\nns.{ZONE}. IN A 127.0.0.1\n"
    )
    zone.write_text(head + "".join(f"{name}. IN A {address}\n" for name, address in _records(names)))
    return zone


def _knot_local(place: Place, names: Names, ttl: int = 5) -> list[str]:
    config = place.folder / "knot.conf"
    config.write_text(
        f"server:\n  rundir: {place.folder}\n  listen: {place.address}@{place.port}\n"
        "  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n  answer-rotation: on\n"
        f"database:\n  storage: {place.folder}\n"
        f"zone:\n  - domain: {ZONE}.\n    file: {_zone(place, names, ttl)}\n"
        "    zonefile-sync: -1\n    journal-content: none\n"
    )
    return ["knotd", "-c", str(config)]


def authority(place: Place, names: Names) -> list[str]:
    """The server that the forwarding ones have the names from. It is not measured."""
    return _knot_local(place, names, LONG_TTL)


# --- bind ---------------------------------------------------------------------------------------------------


def _bind(place: Place, options: str, rest: str = "") -> list[str]:
    config = place.folder / "named.conf"
    config.write_text(
        f'options {{ directory "{place.folder}"; pid-file none; session-keyfile none;'
        f" listen-on port {place.port} {{ {place.address}; }}; listen-on-v6 {{ none; }};"
        f" dnssec-validation no; empty-zones-enable no; {options} }};\ncontrols {{ }};\n{rest}"
    )
    return ["named", "-g", "-n", "1", "-c", str(config)]


def _bind_local(place: Place, names: Names) -> list[str]:
    zone = f'zone "{ZONE}" {{ type primary; file "{_zone(place, names, 5)}"; }};\n'
    return _bind(place, "recursion no;", zone)


def _bind_forwarding(place: Place, upstream: int) -> list[str]:
    return _bind(place, f"recursion yes; forward only; forwarders {{ 127.0.0.1 port {upstream}; }};")


PEERS = (
    # dnsmasq ends a connection after 100 queries; dnsperf waits for those under way until they time out.
    Peer("dnsmasq", "dnsmasq", _dnsmasq_local, _dnsmasq_forwarding, tcp=False),
    Peer("unbound", "unbound", _unbound_local, _unbound_forwarding),
    Peer("knot", "knotd", _knot_local),
    Peer("bind9", "named", _bind_local, _bind_forwarding),
)


def installed() -> list[Peer]:
    """Those that can run here."""
    return [peer for peer in PEERS if peer.installed]


def missing() -> list[str]:
    """Those that cannot, by name."""
    return [peer.name for peer in PEERS if not peer.installed]
