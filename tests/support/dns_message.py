"""DNS messages as values: questions written in any shape, replies read in full.

Written apart from `mesh.dns.wire` on purpose: what is compared here must not be read by what is tested.
"""

import struct
import zlib
from dataclasses import dataclass
from ipaddress import ip_address

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, HTTPS, ANY = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 65, 255
TYPE_NAMES = {
    A: "A", NS: "NS", CNAME: "CNAME", SOA: "SOA", PTR: "PTR", MX: "MX", TXT: "TXT", AAAA: "AAAA", SRV: "SRV",
    OPT: "OPT", HTTPS: "HTTPS", ANY: "ANY",
}  # fmt: skip
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
IN = 1
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
FLAG_NAMES = {"qr": QR, "aa": AA, "tc": TC, "rd": RD, "ra": RA, "z": 0x0040, "ad": AD, "cd": CD}
DO = 0x8000
POINTERS_MAX = 64  # followed in one name; a message that wants more goes in circles
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")

Labels = tuple[bytes, ...]


class Unreadable(ValueError):
    """Not a DNS message."""


def labels(text: str) -> Labels:
    """`a.b.` → its labels; nothing is escaped."""
    stripped = text.removesuffix(".")
    return tuple(part.encode() for part in stripped.split(".")) if stripped else ()


def shown(name: Labels) -> str:
    """A name as people read it, what is odd in it as Python would write it."""
    parts = (repr(label)[2:-1].replace(".", "\\.") for label in name)
    return ".".join(parts) + "."


def folded(name: Labels) -> Labels:
    return tuple(label.lower() for label in name)


@dataclass(frozen=True)
class Edns:
    """What an OPT record in a query says. `options` is its raw data."""

    size: int
    dnssec_ok: bool = False
    options: bytes = b""


@dataclass(frozen=True)
class Question:
    """One query. `flags` are those of RD, AD and CD that are set.

    `raw`, if given, is sent instead of what the rest would make: for what is no proper query.
    """

    name: Labels
    qtype: int
    tcp: bool = False
    flags: int = RD
    edns: Edns | None = None
    qclass: int = IN
    raw: bytes = b""

    @property
    def section(self) -> bytes:
        return _name(self.name) + struct.pack("!HH", self.qtype, self.qclass)

    @property
    def wire(self) -> bytes:
        """The message. Its id depends on all the rest, so that it differs and yet stays the same each run."""
        if self.raw:
            return self.raw
        opt = b"" if self.edns is None else _opt(self.edns)
        rest = _HEADER.pack(0, self.flags, 1, 0, 0, 1 if opt else 0)[2:] + self.section + opt
        return struct.pack("!H", zlib.crc32(rest) & 0xFFFF) + rest

    @property
    def limit(self) -> int:
        """Bytes that the asker can take."""
        if self.tcp:
            return 65535
        return 512 if self.edns is None else max(512, self.edns.size)

    def __str__(self) -> str:
        if self.raw:
            return f"{'TCP' if self.tcp else 'UDP'} message {self.raw.hex()}"
        words = [
            shown(self.name),
            TYPE_NAMES.get(self.qtype, f"TYPE{self.qtype}"),
            "TCP" if self.tcp else "UDP",
        ]
        words += [name for name, bit in FLAG_NAMES.items() if self.flags & bit]
        if self.edns is not None:
            words.append(f"EDNS {self.edns.size}" + " DO" * self.edns.dnssec_ok)
            words += [f"options {self.edns.options.hex()}"] if self.edns.options else []
        if self.qclass != IN:
            words.append(f"class {self.qclass}")
        return " ".join(words)


@dataclass(frozen=True, order=True)
class Record:
    """One record, its data uncompressed."""

    owner: Labels
    rtype: int
    rclass: int
    ttl: int
    data: bytes

    @property
    def key(self) -> tuple[Labels, int, int, bytes]:
        """All but the TTL."""
        return (self.owner, self.rtype, self.rclass, self.data)

    def __str__(self) -> str:
        kind = TYPE_NAMES.get(self.rtype, f"TYPE{self.rtype}")
        return f"{shown(self.owner)} {self.ttl} {kind} {self._data()}"

    def _data(self) -> str:
        if self.rtype in (A, AAAA) and len(self.data) in (4, 16):
            return str(ip_address(self.data))
        if self.rtype in (PTR, CNAME, NS):
            return shown(_read_name(self.data, 0)[0])
        return self.data.hex()


@dataclass(frozen=True)
class Reply:
    """A whole reply. `section` is the echoed question as sent, `records` are kept in order."""

    id: int
    flags: int
    section: bytes
    answers: tuple[Record, ...]
    authority: tuple[Record, ...]
    additional: tuple[Record, ...]
    size: int

    @property
    def rcode(self) -> int:
        return self.flags & 0xF

    @property
    def opt(self) -> Record | None:
        return next((record for record in self.additional if record.rtype == OPT), None)

    def __str__(self) -> str:
        flags = " ".join(name for name, bit in FLAG_NAMES.items() if self.flags & bit)
        lines = [f"{RCODES.get(self.rcode, self.rcode)} [{flags}] {self.size} bytes"]
        for title in ("answers", "authority", "additional"):
            lines += [
                f"  {title[:-1] if title == 'answers' else title}: {one}" for one in getattr(self, title)
            ]
        return "\n".join(lines)


def parse(data: bytes) -> Reply:
    """Bytes → a reply. Raises Unreadable, also for bytes that are left over."""
    try:
        return _parse(data)
    except (struct.error, IndexError) as error:
        raise Unreadable(f"ends early: {data.hex()}") from error


def _parse(data: bytes) -> Reply:
    id_, flags, questions, *counts = _HEADER.unpack_from(data)
    at = _HEADER.size
    for _ in range(questions):
        at = _read_name(data, at)[1] + 4
    section = data[_HEADER.size : at]
    groups: list[tuple[Record, ...]] = []
    for count in counts:
        records: list[Record] = []
        for _ in range(count):
            record, at = _read_record(data, at)
            records.append(record)
        groups.append(tuple(records))
    if at != len(data):
        raise Unreadable(f"{len(data) - at} bytes too many: {data.hex()}")
    return Reply(id_, flags, section, groups[0], groups[1], groups[2], len(data))


def _read_record(data: bytes, at: int) -> tuple[Record, int]:
    owner, at = _read_name(data, at)
    rtype, rclass, ttl, length = _RECORD.unpack_from(data, at)
    at += _RECORD.size
    end = at + length
    if end > len(data):
        raise Unreadable("a record ends outside the message")
    return Record(owner, rtype, rclass, ttl, _plain_data(data, at, end, rtype)), end


_NAMES_FROM = {NS: 0, CNAME: 0, PTR: 0, SOA: 0, MX: 2, SRV: 6}  # where the names in a record's data begin


def _plain_data(data: bytes, at: int, end: int, rtype: int) -> bytes:
    if rtype not in _NAMES_FROM or at == end:
        return data[at:end]
    plain = data[at : at + _NAMES_FROM[rtype]]
    at += len(plain)
    for _ in range(2 if rtype == SOA else 1):
        name, at = _read_name(data, at)
        plain += _name(name)
    return plain + data[at:end]


def _read_name(data: bytes, at: int) -> tuple[Labels, int]:
    found: list[bytes] = []
    end = 0
    for _ in range(POINTERS_MAX * 2):
        length = data[at]
        if length >= 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
        elif length == 0:
            return tuple(found), end or at + 1
        else:
            found.append(data[at + 1 : at + 1 + length])
            at += 1 + length
    raise Unreadable("a name that goes in circles")


def _name(name: Labels) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def _opt(edns: Edns) -> bytes:
    return b"\0" + _RECORD.pack(OPT, edns.size, DO if edns.dnssec_ok else 0, len(edns.options)) + edns.options
