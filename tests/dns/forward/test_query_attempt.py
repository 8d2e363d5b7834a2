"""One try at one server, in the way that suits it, and what forgers achieve: real sockets on loopback."""

import asyncio
import socket

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from mesh.dns.config import FORGERIES_MAX
from mesh.dns.forward.route import DnsServer, UpstreamRoute
from tests.dns.fakes import Behaviour, say, silence, upstream
from tests.dns.forward.asking import Asking, data

EVIL = "203.0.113.66"


def folding(behave: Behaviour) -> Behaviour:
    """A server that forgets how the name was spelled."""
    return lambda query: behave(query[:12] + query[12:].lower())


def without_edns(behave: Behaviour, rcode: int = 1) -> Behaviour:
    """A server of 1998."""
    return lambda query: say(rcode=rcode)(query) if query[11] else behave(query)


def truncated(query: bytes) -> list[bytes]:
    [reply] = say()(query)
    return [reply[:2] + bytes((reply[2] | 2,)) + reply[3:]]


def large(query: bytes) -> list[bytes]:
    reply = DNSRecord.parse(query).reply()
    for number in range(200):
        reply.add_answer(RR("www.example", QTYPE.A, ttl=60, rdata=A(f"192.0.2.{number}")))
    return [bytes(reply.pack())]


# --- forgers ------------------------------------------------------------------------------------------------


async def test_messages_that_are_no_reply_are_passed_over_and_counted(asking: Asking) -> None:
    def spoof(query: bytes) -> list[bytes]:
        [good], [evil] = say("192.0.2.1")(query), say(EVIL)(query)
        other_id = bytes((evil[0] ^ 1,)) + evil[1:]
        at = query.lower().index(b"\x07example") + 1
        other_question = evil[:at] + b"exbmple" + evil[at + 7 :]
        return [other_id, other_question, evil[:20], b"x", query, good]

    async with upstream(spoof) as server:
        assert data(await asking.ask(server.port)) == ["192.0.2.1"]
    assert asking.stats.rejected == {"id": 3, "question": 2}


async def test_whoever_does_not_know_the_spelling_is_not_believed(asking: Asking) -> None:
    """The forger has guessed id and port, but not the letters."""
    first: list[bytes] = []

    def forged_once(query: bytes) -> list[bytes]:
        if first:
            return say("192.0.2.1")(query)
        first.append(query)
        [evil] = say(EVIL)(query[:12] + query[12:].swapcase())
        return [evil]

    async with upstream(forged_once) as server:
        assert data(await asking.ask(server.port)) == ["192.0.2.1"]
    assert asking.stats.rejected == {"case": 1}
    assert len(server.queries) == 2
    assert server.queries[0][:2] != server.queries[1][:2]


async def test_a_reply_from_another_address_does_not_arrive(asking: Asking) -> None:
    """The socket is connected: the kernel lets in what comes from the server's address and port only."""
    made: list[socket.socket] = []

    def factory(family: int, kind: int) -> socket.socket:
        made.append(socket.socket(family, kind | socket.SOCK_NONBLOCK))
        return made[-1]

    async with upstream(silence) as server:
        waiting = asking.begin(UpstreamRoute("host", (DnsServer("127.0.0.1", server.port),), sockets=factory))
        await server.asked()
        [evil] = say(EVIL)(server.queries[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
            spoofer.sendto(evil, made[0].getsockname())
        server.behave = say("192.0.2.1")
        assert data(await waiting) == ["192.0.2.1"]
    assert asking.stats.rejected == {}


async def test_under_a_flood_of_forgeries_the_question_is_asked_over_tcp(asking: Asking) -> None:
    def flood(query: bytes) -> list[bytes]:
        if server.over_tcp:
            return say("192.0.2.1")(query)
        [evil] = say(EVIL)(query)
        return [bytes((evil[0] ^ 1,)) + evil[1:]] * FORGERIES_MAX

    async with upstream(flood) as server:
        assert data(await asking.ask(server.port)) == ["192.0.2.1"]
    assert asking.stats.rejected == {"id": FORGERIES_MAX}
    assert server.over_tcp == 1


# --- servers with habits ------------------------------------------------------------------------------------


async def test_a_server_that_changes_the_case_is_asked_again_at_once_and_remembered(asking: Asking) -> None:
    async with upstream(folding(say("192.0.2.1"))) as server:
        assert data(await asking.ask(server.port)) == ["192.0.2.1"]
        assert data(await asking.ask(server.port, name="other.example")) == ["192.0.2.1"]
    assert len(server.queries) == 3
    assert asking.stats.rejected == {"case": 1}
    assert all(query[12:] == query[12:].lower() for query in server.queries[1:])


@pytest.mark.parametrize("rcode", [1, 4])
async def test_a_server_that_knows_no_edns_is_asked_without_it(asking: Asking, rcode: int) -> None:
    async with upstream(without_edns(say("192.0.2.1"), rcode)) as server:
        assert data(await asking.ask(server.port)) == ["192.0.2.1"]
        assert data(await asking.ask(server.port, name="other.example")) == ["192.0.2.1"]
    assert [query[11] for query in server.queries] == [1, 0, 0]


async def test_an_error_that_has_nothing_to_do_with_edns_is_passed_on(asking: Asking) -> None:
    async with upstream(say(rcode=4)) as server:
        received = await asking.ask(server.port)
    assert received is not None
    assert received.reply.rcode == 4


async def test_a_plain_spelling_where_it_is_configured() -> None:
    asking = Asking(mixed_case=False)
    async with upstream(say()) as server:
        await asking.ask(server.port)
    await asking.tasks.close()
    assert server.queries[0][12:].startswith(b"\x03www\x07example")


# --- truncation ---------------------------------------------------------------------------------------------


async def test_a_truncated_reply_is_fetched_whole_over_tcp(asking: Asking) -> None:
    async with upstream(lambda q: large(q) if server.over_tcp else truncated(q)) as server:
        assert len(data(await asking.ask(server.port))) == 200
    assert server.over_tcp == 1


async def test_a_way_over_tcp_that_leads_nowhere_is_given_up(asking: Asking) -> None:
    """A firewall that swallows port 53/tcp: connected or not, nothing ever comes."""
    async with upstream(truncated) as server:
        server.hold_tcp = asyncio.Event()
        received = await asking.ask(server.port)
        server.hold_tcp.set()
    assert received is not None
    assert received.reply.truncated


async def test_what_is_truncated_and_not_to_be_had_over_tcp_is_passed_on_as_it_is(asking: Asking) -> None:
    async with upstream(truncated) as server:
        server.close_tcp()
        received = await asking.ask(server.port)
    assert received is not None
    assert received.reply.truncated
    assert data(received) == ["192.0.2.1"]


@pytest.mark.parametrize("garbage", [b"", b"\0\1x", b"\xff\xff", b"\0\x0c" + bytes(12)])
async def test_broken_tcp_replies_are_failures(asking: Asking, garbage: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    assert await asking.ask(server.sockets[0].getsockname()[1], tcp=True) is None
    server.close()


async def test_a_reply_with_a_broken_record_is_a_failure(asking: Asking) -> None:
    async with upstream(lambda query: [say()(query)[0][:-2]]) as server:
        assert await asking.ask(server.port) is None
    assert asking.results[0] == "ERROR"


async def test_over_ipv6_with_a_zone(asking: Asking) -> None:
    """`%1` is the loopback interface, where ::1 is."""
    async with upstream(say("192.0.2.6"), host="::1") as server:
        to = UpstreamRoute("host", (DnsServer("::1%1", server.port),))
        for tcp in (False, True):
            assert data(await asking.begin(to, tcp=tcp)) == ["192.0.2.6"]
