"""The resolvers that ours is measured beside, each told to answer the same names from memory on one core.

Debian's packages, run from a folder of their own in the foreground: no service is started, no file of the
system is read or written. A peer that is not installed is left out by name.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("dnsperf", "dnsmasq", "unbound", "knot")
ZONE = "bench"

Names = Mapping[str, str]  # absolute name without the trailing dot → IPv4 address


@dataclass(frozen=True)
class Peer:
    """`command` writes what the server needs into the folder and returns how to start it."""

    name: str
    program: str
    command: Callable[[Path, int, Names], list[str]]

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None


def _dnsmasq(folder: Path, port: int, names: Names) -> list[str]:
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    return [
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
        *(f"--addn-hosts={hosts}", f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces"),
        *("--cache-size=10000", "--pid-file=", "--log-facility=/dev/null"),
    ]


def _unbound(folder: Path, port: int, names: Names) -> list[str]:
    data = "".join(f'  local-data: "{name}. 5 IN A {address}"\n' for name, address in names.items())
    config = folder / "unbound.conf"
    config.write_text(
        f"server:\n  interface: 127.0.0.1@{port}\n  num-threads: 1\n  do-daemonize: no\n"
        '  chroot: ""\n  username: ""\n  pidfile: ""\n  use-syslog: no\n  logfile: "/dev/null"\n'
        f'  directory: "{folder}"\n  local-zone: "{ZONE}." static\n{data}'
        "remote-control:\n  control-enable: no\n"
    )
    return ["unbound", "-d", "-c", str(config)]


def _knot(folder: Path, port: int, names: Names) -> list[str]:
    records = "".join(f"{name}. 5 IN A {address}\n" for name, address in names.items())
    zone = folder / "zone"
    zone.write_text(
        f"{ZONE}. 5 IN SOA ns.{ZONE}. h.{ZONE}. 1 60 60 60 5\n{ZONE}. 5 IN NS ns.{ZONE}.\n{records}"
    )
    config = folder / "knot.conf"
    config.write_text(
        f"server:\n  rundir: {folder}\n  listen: 127.0.0.1@{port}\n"
        "  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
        f"database:\n  storage: {folder}\n"
        f"zone:\n  - domain: {ZONE}.\n    file: {zone}\n    zonefile-sync: -1\n    journal-content: none\n"
    )
    return ["knotd", "-c", str(config)]


PEERS = (
    Peer("dnsmasq", "dnsmasq", _dnsmasq),
    Peer("unbound", "unbound", _unbound),
    Peer("knot", "knotd", _knot),
)
