"""Where a service's ports are, by name: `_http._tcp.web` (RFC 2782; asked for in moby#24605).

The port told is the one inside the tasks: VIP and task addresses are reached by no other. What says most
plainly which port is meant counts, and the rest is not looked at:
1. a label `mesh.dns.srv.NAME`;
2. the port's own name, where the Swarm's API was given one;
3. the number of the port inside the tasks, or the name that IANA has registered for that number;
4. the same of the published port.

Only registered names: 8080 is `http-alt`, not `http`. The guess that it speaks HTTP is mostly right, but a
record that is wrong leads clients astray, and one that is missing is a label away.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mesh.catalog.model import Port, Protocol, Service
from mesh.labels.dns import SRV, labelled_ports

_BOTH = {53: "domain", 443: "https", 5060: "sip", 11211: "memcache"}
WELL_KNOWN = {
    Protocol.TCP: _BOTH
    | {
        21: "ftp",
        22: "ssh",
        25: "smtp",
        80: "http",
        110: "pop3",
        143: "imap",
        389: "ldap",
        465: "submissions",
        587: "submission",
        636: "ldaps",
        993: "imaps",
        995: "pop3s",
        1433: "ms-sql-s",
        1883: "mqtt",
        2049: "nfs",
        2379: "etcd-client",
        2380: "etcd-server",
        3306: "mysql",
        5222: "xmpp-client",
        5269: "xmpp-server",
        5432: "postgresql",
        5671: "amqps",
        5672: "amqp",
        6379: "redis",
        8080: "http-alt",
        8883: "secure-mqtt",
        27017: "mongodb",
    },
    Protocol.UDP: _BOTH | {69: "tftp", 123: "ntp", 514: "syslog"},
    Protocol.SCTP: dict[int, str](),
}


class PortName(NamedTuple):
    """`_port._protocol.base`, in lower case but for the base."""

    port: str
    protocol: str
    base: str

    @classmethod
    def of(cls, name: str) -> "PortName | None":
        """None: not a name of this form."""
        port, _, rest = name.partition(".")
        protocol, _, base = rest.partition(".")
        if not base or len(port) < 2 or port[0] != "_" or protocol.lower() not in ("_tcp", "_udp", "_sctp"):
            return None
        return cls(port[1:].lower(), protocol[1:].lower(), base)


def has_ports(service: Service) -> bool:
    """Published ones, or some that its labels name."""
    return bool(service.ports) or any(label.startswith(SRV) for label in service.labels)


def ports_named(service: Service, name: PortName) -> tuple[int, ...]:
    """Target ports, each once; none where the service has no such port."""
    if found := labelled_ports(service, name.port, name.protocol):
        return tuple(dict.fromkeys(found))
    ports = [port for port in service.ports if port.protocol == name.protocol]
    for called in (_own, _target, _published):
        if found := tuple(dict.fromkeys(port.target for port in ports if name.port in called(port))):
            return found
    return ()


def _own(port: Port) -> Iterator[str]:
    if port.name:
        yield port.name.lower()


def _target(port: Port) -> Iterator[str]:
    return _numbered(port.target, port.protocol)


def _published(port: Port) -> Iterator[str]:
    return _numbered(port.published, port.protocol)


def _numbered(number: int, protocol: Protocol) -> Iterator[str]:
    yield str(number)
    if number in WELL_KNOWN[protocol]:
        yield WELL_KNOWN[protocol][number]
