"""What nobody should send: each gets the answer that the protocol has for it, or none, and is counted; and
whoever asks next is served."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from dnslib import DNSRecord

from mesh.catalog.model import Asker
from mesh.catalog.snapshot import Change
from mesh.dns import udp_server, wire
from mesh.dns.config import QUERY_MAX, UDP_REPLY_MAX, UDP_SLOT
from mesh.dns.wire import QType, Rcode
from tests.dns.fakes import LIMIT, over_udp, question, shown
from tests.dns.serving import Serving, Starter, frame, framed

NAME = b"\3web\0"
WEB = NAME + b"\0\1\0\1"
ID = 0x1234
NOT_A_QUERY = "not a query"


def message(body: bytes = WEB, flags: int = wire.RD, counts: tuple[int, ...] = (1, 0, 0, 0)) -> bytes:
    return wire.HEADER.pack(ID, flags, *counts) + body


def record(rtype: int, size: int = 1, ttl: int = 0, data: bytes = b"", owner: bytes = b"\0") -> bytes:
    return owner + wire.RECORD.pack(rtype, size, ttl, len(data)) + data


def opt(size: int = 4096, version: int = 0, data: bytes = b"", owner: bytes = b"\0") -> bytes:
    return record(QType.OPT, size, version << 16, data, owner)


def with_records(*additional: bytes) -> bytes:
    return message(WEB + b"".join(additional), counts=(1, 0, 0, len(additional)))


def name(*labels: bytes) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def asking(owner: bytes, qtype: int = 1, qclass: int = 1) -> bytes:
    return message(owner + wire.TYPE_CLASS.pack(qtype, qclass))


@dataclass(frozen=True)
class Case:
    what: str
    sent: bytes
    rcode: int | None  # None: no reply at all
    edns: bool = False  # does the reply have an OPT record?
    repeated: bool = False  # does it repeat the question?


def cases() -> Iterator[Case]:
    bad, notimp, refused = Rcode.FORMERR, Rcode.NOTIMP, Rcode.REFUSED
    whole = with_records(opt(data=b"\0\x0a\0\x08cookies!"))
    for end in range(len(whole)):
        yield Case(f"cut after {end} bytes", whole[:end], bad if end >= 12 else None)
    yield Case("nothing but zeros", bytes(12), bad)
    yield Case("nothing but ones", b"\xff" * UDP_SLOT, None)  # says that it is a response

    yield Case("a name that points to itself", asking(b"\xc0\x0c"), bad)
    yield Case("labels that point to their beginning", asking(b"\3web\xc0\x0c"), bad)
    yield Case("a pointer forward", asking(b"\xc0\x10\0\0\0\0"), bad)
    yield Case("a pointer out of the message", asking(b"\xff\xff"), bad)
    yield Case("a label of 64 octets", asking(name(b"a" * 64)), bad)
    yield Case("a label of an unknown kind", asking(b"\x80web\0"), bad)
    yield Case("a name of 256 octets", asking(name(*[b"a" * 63] * 3, b"a" * 62)), bad)
    yield Case("a name of 128 labels", asking(name(*[b"a"] * 128)), bad)
    yield Case("a name without an end", message(b"\1a" * 200), bad)

    yield Case("no question", message(b"", counts=(0, 0, 0, 0)), bad)
    yield Case("two questions", message(WEB + WEB, counts=(2, 0, 0, 0)), bad)
    yield Case("65535 questions", message(counts=(65535, 0, 0, 0)), bad)
    yield Case("65535 additional records", message(counts=(1, 0, 0, 65535)), bad)
    yield Case("a record that is not there", message(counts=(1, 1, 0, 0)), bad)
    yield Case("a record longer than the message", with_records(record(1, data=b"1234")[:-1]), bad)

    for opcode, title in {1: "IQUERY", 2: "STATUS", 4: "NOTIFY", 5: "UPDATE", 6: "DSO", 15: "15"}.items():
        yield Case(f"opcode {title}", message(flags=opcode << 11), notimp)
    yield Case("an UPDATE that adds a record", message(WEB + WEB, 5 << 11, (1, 0, 1, 0)), notimp)
    yield Case("a response", message(flags=wire.QR), None)
    yield Case("an error response", message(b"", wire.QR | Rcode.FORMERR, (0, 0, 0, 0)), None)
    yield Case("a response with another opcode", message(flags=wire.QR | 5 << 11), None)

    for qclass, title in {0: "0", 3: "CH", 4: "HS", 254: "NONE", 65535: "65535"}.items():
        yield Case(f"class {title}", asking(NAME, qclass=qclass), refused, repeated=True)
    yield Case("version.bind", asking(name(b"version", b"bind"), 16, 3), refused, repeated=True)
    yield Case("AXFR", asking(NAME, 252), refused, repeated=True)
    yield Case("IXFR", asking(NAME, 251), refused, repeated=True)
    yield Case("OPT as a question", asking(NAME, QType.OPT), bad)

    for version in (1, 255):
        yield Case(f"EDNS version {version}", with_records(opt(version=version)), Rcode.BADVERS, True, True)
    yield Case("two OPT", with_records(opt(), opt()), bad)
    yield Case("two OPT, one of version 1", with_records(opt(version=1), opt()), bad)
    yield Case("OPT not at the root", with_records(opt(owner=name(b"web"))), bad)
    yield Case("OPT at a pointer", with_records(opt(owner=b"\xc0\x0c")), bad)
    yield Case("OPT as an answer", message(WEB + opt(), counts=(1, 1, 0, 0)), bad)
    yield Case("half an EDNS option", with_records(opt(data=b"\0\x0a\0")), bad)
    yield Case("an EDNS option longer than its record", with_records(opt(data=b"\0\x0a\0\x09cookies!")), bad)
    yield Case("bytes behind the question", message() + b"\0", bad)
    yield Case("bytes behind OPT", with_records(opt()) + b"garbage", bad)
    yield Case("a second query behind the first", message() + message(), bad)
    yield Case("more than UDP takes in, behind a query", message() + bytes(UDP_SLOT), bad)


CASES = [pytest.param(case, id=case.what) for case in cases()]

PADDING = b"\0\x0c" + UDP_SLOT.to_bytes(2) + bytes(UDP_SLOT)
UNUSUAL = {
    "class ANY": asking(NAME, qclass=255),
    "EDNS size 0": with_records(opt(0)),
    "EDNS size 65535": with_records(opt(65535)),
    "EDNS flags nobody knows": with_records(record(QType.OPT, 1232, 0x7FFF)),
    "EDNS options nobody knows": with_records(opt(data=b"\xff\xfe\0\1x\xff\xfd\0\0")),
    "a TSIG signature": with_records(record(250, 255, data=b"\4hmac\0" + bytes(20), owner=name(b"key"))),
    "a TSIG signature and EDNS": with_records(opt(), record(250, 255, data=bytes(30), owner=name(b"key"))),
    "a record of the answer": message(WEB + record(1, data=b"1234"), counts=(1, 1, 0, 0)),
    "every flag but QR and opcode": message(flags=0x07FF),
    "capital letters": message(WEB.replace(b"web", b"WeB")),
}


@pytest.mark.parametrize("case", CASES)
async def test_over_udp(start: Starter, case: Case) -> None:
    serving = await start()
    if case.rcode is not None:
        check(await over_udp(serving.port, case.sent), case)
    else:
        await no_reply(serving, case.sent)
    assert serving.resolver.stats.dropped == ({} if case.rcode is not None else {NOT_A_QUERY: 1})
    if case.rcode is not None:
        assert serving.resolver.requests == {("", "other", Rcode(case.rcode).name, "local"): 1}
    assert serving.resolver.cache_entries == 0
    assert await serving.shown("web") == ["10.1.0.2"]


async def no_reply(serving: Serving, sent: bytes) -> None:
    """The first reply that comes is to a good query sent afterwards from the same socket."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.connect(("127.0.0.1", serving.port))
        client.send(sent)
        client.send(good := question("shop"))
        async with asyncio.timeout(LIMIT):
            assert (await loop.sock_recv(client, 65535))[:2] == good[:2]
    serving.resolver.cache.invalidate({"shop"})


def check(reply: bytes, case: Case) -> None:
    read = DNSRecord.parse(reply)
    ttl = read.ar[0].ttl if read.ar else 0  # of OPT: upper bits of the rcode, version, flags
    assert (reply[:2], read.header.qr) == (case.sent[:2], 1)
    assert ttl >> 24 << 4 | read.header.rcode == case.rcode
    assert ttl & 0xFF0000 == 0
    assert read.header.get_opcode() == case.sent[2] >> 3 & 0xF
    counts = (len(read.questions), len(read.rr), len(read.auth), len(read.ar))
    assert counts == (case.repeated, 0, 0, case.edns)
    if case.repeated:
        assert reply[12 : 12 + len(WEB)] == case.sent[12 : 12 + len(WEB)]


@pytest.mark.parametrize("case", CASES)
async def test_over_tcp(start: Starter, case: Case) -> None:
    serving = await start()
    async with connected(serving) as (reader, writer):
        writer.write(framed(case.sent, question("web")))
        if case.rcode is not None:
            check(await frame(reader), case)
        if len(case.sent) >= wire.HEADER.size:  # what is no message ends the connection
            assert shown(await frame(reader)) == ["10.1.0.2"]
        else:
            assert await reader.read() == b""
    assert serving.resolver.stats.dropped == ({} if case.rcode is not None else {NOT_A_QUERY: 1})


@asynccontextmanager
async def connected(serving: Serving) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await serving.connect()
    try:
        async with asyncio.timeout(LIMIT):
            yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("sent", UNUSUAL.values(), ids=UNUSUAL)
async def test_what_is_unusual_but_allowed_is_answered(start: Starter, sent: bytes) -> None:
    serving = await start()
    for _ in range(2):  # from the table, then from the cache
        reply = await over_udp(serving.port, sent)
        assert shown(reply) == ["10.1.0.2"]
        assert reply[12 : 12 + len(WEB)] == sent[12 : 12 + len(WEB)]
    async with connected(serving) as (reader, writer):
        writer.write(framed(sent))
        assert shown(await frame(reader)) == ["10.1.0.2"]


@pytest.mark.parametrize(("size", "room"), [(0, 512), (511, 512), (600, 600), (65535, UDP_REPLY_MAX)])
async def test_replies_are_no_larger_than_edns_says(start: Starter, size: int, room: int) -> None:
    serving = await start()
    body = name(b"tasks", b"big") + b"\0\1\0\1" + opt(size)
    reply = await over_udp(serving.port, message(body, counts=(1, 0, 0, 1)))
    assert len(reply) <= room
    assert bool(reply[2] & wire.TC >> 8) == (room < 998)  # what all sixty addresses take


async def test_datagrams_beyond_any_query_are_not_read_whole_and_tcp_is(start: Starter) -> None:
    serving = await start()
    padded = with_records(opt(data=PADDING))
    assert UDP_SLOT < len(padded) < QUERY_MAX
    check(await over_udp(serving.port, padded), Case("cut", padded, Rcode.FORMERR))
    check(await over_udp(serving.port, message() + bytes(60_000)), Case("huge", padded, Rcode.FORMERR))
    async with connected(serving) as (reader, writer):
        writer.write(framed(padded))
        assert shown(await frame(reader)) == ["10.1.0.2"]


async def test_a_flood_of_rubbish_leaves_nothing_behind(start: Starter) -> None:
    serving = await start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", serving.port))
        for case in cases():
            client.send(case.sent)
            await asyncio.sleep(0)
        for n in range(1000):
            client.send(n.to_bytes(2) * (n % 40))
            await asyncio.sleep(0)
    assert await serving.shown("web") == ["10.1.0.2"]
    serving.resolver.cache.invalidate({"web"})
    assert serving.resolver.cache_entries == 0
    assert set(serving.resolver.stats.dropped) == {NOT_A_QUERY}
    assert len(serving.tasks) == 0


# --- strangers ----------------------------------------------------------------------------------------------


async def test_strangers_learn_nothing_whatever_they_send(start: Starter) -> None:
    serving = await start(None)
    serving.publish(Change(askers=(Asker("one", "127.0.0.1/32", ("n1",)),)))
    sent = [case.sent for case in cases()] + [question("web"), question("www.example"), *UNUSUAL.values()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as stranger:
        stranger.bind(("127.0.0.9", 0))
        stranger.connect(("127.0.0.1", serving.port))
        for one in sent:
            stranger.send(one)
            assert await serving.shown("web") == ["10.1.0.2"]
        with pytest.raises(BlockingIOError):
            stranger.recv(1)
    assert serving.resolver.stats.dropped == {"stranger": len(sent)}


async def test_many_strangers_do_not_push_out_those_we_know(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses are remembered up to a limit; here a batch has more than that."""
    monkeypatch.setattr(udp_server, "SOURCES_MAX", 8)
    serving = await start(None)
    serving.publish(Change(askers=(Asker("one", "127.0.0.1/32", ("n1",)),)))
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as known:
        known.connect(("127.0.0.1", serving.port))
        for n in range(1, 100):  # nothing is awaited: batches are full
            known.send(question("web"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((f"127.0.1.{n}", 0))
                stranger.sendto(question("web"), ("127.0.0.1", serving.port))
        for _ in range(99):
            async with asyncio.timeout(LIMIT):
                assert shown(await loop.sock_recv(known, 512)) == ["10.1.0.2"]
    assert serving.resolver.stats.dropped == {"stranger": 99}
    assert len(serving.endpoint._askers) <= 8
