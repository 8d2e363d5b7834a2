"""conntrack's messages: what is asked, and a flow as the kernel tells it. Pure.

Formats: linux/netfilter/nfnetlink_conntrack.h. A flow has two tuples: as the first packet had it, and as
answers look. After a DNAT the answers' source is the task; that is how flows to a task are found.
"""

import socket
import struct
from dataclasses import dataclass

from mesh.net import netlink

SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
NEW, GET, DELETE, STATISTICS = SUBSYSTEM | 0, SUBSYSTEM | 1, SUBSYSTEM | 2, SUBSYSTEM | 5

TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, PROTOCOL_INFO, TIMEOUT, MARK, ID, MARK_MASK, FILTER = (
    1,
    2,
    3,
    4,
    7,
    8,
    12,
    21,
    25,
)
TUPLE_IP, TUPLE_PROTOCOL = 1, 2
IP_SOURCE, IP_DESTINATION = 1, 2
PROTOCOL_NUMBER, PROTOCOL_SOURCE, PROTOCOL_DESTINATION = 1, 2, 3
FILTER_ORIGINAL, FILTER_REPLY = 1, 2
FILTER_IP_SOURCE, FILTER_IP_DESTINATION = 1, 2
TCP_INFO, TCP_STATE = 1, 1
ENTRIES = 1  # CTA_STATS_GLOBAL_ENTRIES

SEEN_REPLY = 1 << 1  # IPS_SEEN_REPLY
SYN_SENT = 1  # TCP_CONNTRACK_SYN_SENT
OPEN = range(2, 6)  # SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP

_GENERIC_BYTES = 4
# Where the kernel puts the answers' source: behind the heads of the tuple, its addresses, the first of them.
_REPLY_HEADS = struct.Struct("=2xH2xHHH")


@dataclass(frozen=True, slots=True)
class FlowSide:
    """One of a flow's two tuples. Ports are 0 for protocols that have none."""

    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection as conntrack has it."""

    protocol: int
    original: FlowSide
    reply: FlowSide
    answered: bool = False
    tcp_state: int = 0
    mark: int = 0
    left: int = 0  # seconds that it is kept without another packet
    key: bytes = b""  # original tuple and id as attributes: how it is named to be deleted

    @property
    def led(self) -> bool:
        """Its destination has been rewritten: another one answers."""
        return self.reply.source != self.original.destination

    @property
    def beginning(self) -> bool:
        """A TCP connection whose SYN has not been answered."""
        return self.protocol == TCP and self.tcp_state == SYN_SENT and not self.answered

    @property
    def open(self) -> bool:
        """A TCP connection that has begun and has not been closed by both sides."""
        return self.protocol == TCP and self.tcp_state in OPEN


@dataclass(frozen=True, slots=True)
class FlowMatch:
    """Which flows; "" and None: any. `mark`: value and mask."""

    answers_from: str = ""  # the task, after a DNAT
    destination: str = ""  # as the first packet had it
    mark: tuple[int, int] | None = None

    def matches(self, flow: Flow) -> bool:
        """Kernels before 5.8 do not filter by address."""
        return (
            (not self.answers_from or flow.reply.source == self.answers_from)
            and (not self.destination or flow.original.destination == self.destination)
            and (self.mark is None or flow.mark & self.mark[1] == self.mark[0])
        )


def dump_request(wanted: FlowMatch) -> bytes:
    """The body of a dump of IPv4 flows, narrowed as far as the kernel can."""
    body = _generic()
    flags = {}
    if wanted.answers_from:
        body += _address(TUPLE_REPLY, IP_SOURCE, wanted.answers_from)
        flags[FILTER_REPLY] = FILTER_IP_SOURCE
    if wanted.destination:
        body += _address(TUPLE_ORIGINAL, IP_DESTINATION, wanted.destination)
        flags[FILTER_ORIGINAL] = FILTER_IP_DESTINATION
    if flags:
        parts = (netlink.attribute(kind, struct.pack("=I", flags.get(kind, 0))) for kind in (1, 2))
        body += netlink.attribute(FILTER | netlink.NESTED, b"".join(parts))
    if wanted.mark is not None:
        value, mask = wanted.mark
        body += netlink.attribute(MARK, struct.pack("!I", value))
        body += netlink.attribute(MARK_MASK, struct.pack("!I", mask))
    return body


def statistics_request() -> bytes:
    """The body of a request for the numbers of the namespace."""
    return _generic()


def entries(body: bytes) -> int:
    """How many flows the namespace has, as the answer says."""
    return _number(netlink.attributes(body[_GENERIC_BYTES:]).get(ENTRIES))


def delete_request(flow: Flow) -> bytes:
    """The body of the deletion of this flow."""
    return _generic() + flow.key


def answers_from(body: bytes) -> bytes:
    """The packed source of the answers in a NEW message; b"" when there is none. A look at the place where
    the kernel has it takes a tenth of `flow_of`, which counts where most flows are of no interest."""
    if len(body) < _GENERIC_BYTES + netlink.ATTRIBUTE.size:
        return b""
    length, _ = netlink.ATTRIBUTE.unpack_from(body, _GENERIC_BYTES)
    reply = _GENERIC_BYTES + ((length + 3) & ~3)
    at = reply + _REPLY_HEADS.size
    if len(body) >= at + 4:
        heads = _REPLY_HEADS.unpack_from(body, reply)
        if heads == (TUPLE_REPLY | netlink.NESTED, TUPLE_IP | netlink.NESTED, 8, IP_SOURCE):
            return body[at : at + 4]
    values = netlink.attributes(body[_GENERIC_BYTES:])
    addresses = netlink.attributes(netlink.attributes(values.get(TUPLE_REPLY, b"")).get(TUPLE_IP, b""))
    return addresses.get(IP_SOURCE, b"")


def port_in_use(body: bytes, destination: bytes) -> tuple[int, int] | None:
    """(protocol, port) of a NEW message's flow to this packed address, as its first packet had them: of a TCP
    connection that is open, of anything else that has been answered. None: it is none of these."""
    values = netlink.attributes(body[_GENERIC_BYTES:])
    original = netlink.attributes(values.get(TUPLE_ORIGINAL, b""))
    if netlink.attributes(original.get(TUPLE_IP, b"")).get(IP_DESTINATION) != destination:
        return None
    protocol = netlink.attributes(original.get(TUPLE_PROTOCOL, b""))
    number = _number(protocol.get(PROTOCOL_NUMBER))
    used = _tcp_state(values) in OPEN if number == TCP else _number(values.get(STATUS)) & SEEN_REPLY
    return (number, _number(protocol.get(PROTOCOL_DESTINATION))) if used else None


def flow_of(body: bytes) -> Flow | None:
    """The flow in a NEW message; None when it is not IPv4 or lacks a tuple."""
    values = netlink.attributes(body[_GENERIC_BYTES:])
    original, reply = (_side(values.get(kind)) for kind in (TUPLE_ORIGINAL, TUPLE_REPLY))
    if original is None or reply is None:
        return None
    (protocol, first), (_, second) = original, reply
    key = netlink.attribute(TUPLE_ORIGINAL | netlink.NESTED, values[TUPLE_ORIGINAL])
    if ID in values:
        key += netlink.attribute(ID, values[ID])
    return Flow(
        protocol,
        first,
        second,
        answered=bool(_number(values.get(STATUS)) & SEEN_REPLY),
        tcp_state=_tcp_state(values),
        mark=_number(values.get(MARK)),
        left=_number(values.get(TIMEOUT)),
        key=key,
    )


def _side(data: bytes | None) -> tuple[int, FlowSide] | None:
    parts = netlink.attributes(data or b"")
    addresses = netlink.attributes(parts.get(TUPLE_IP, b""))
    protocol = netlink.attributes(parts.get(TUPLE_PROTOCOL, b""))
    ends = [addresses.get(kind, b"") for kind in (IP_SOURCE, IP_DESTINATION)]
    if any(len(end) != 4 for end in ends):
        return None
    number = protocol.get(PROTOCOL_NUMBER, b"\0")[0]
    source, destination = map(socket.inet_ntoa, ends)
    ports = (_number(protocol.get(kind)) for kind in (PROTOCOL_SOURCE, PROTOCOL_DESTINATION))
    return number, FlowSide(source, destination, *ports)


def _tcp_state(values: dict[int, bytes]) -> int:
    info = netlink.attributes(netlink.attributes(values.get(PROTOCOL_INFO, b"")).get(TCP_INFO, b""))
    return info.get(TCP_STATE, b"\0")[0]


def _address(side: int, end: int, address: str) -> bytes:
    ip = netlink.attribute(end, socket.inet_aton(address))
    return netlink.attribute(side | netlink.NESTED, netlink.attribute(TUPLE_IP | netlink.NESTED, ip))


def _generic() -> bytes:
    return struct.pack("!BBH", socket.AF_INET, 0, 0)


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "big")
