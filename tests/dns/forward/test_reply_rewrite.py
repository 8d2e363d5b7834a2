"""An upstream's reply, made one asker's own."""

import pytest
from dnslib import EDNS0, NS, QTYPE, RR, A, DNSRecord

from mesh.dns.forward.query_builder import Received, UpstreamQuery, received
from mesh.dns.forward.reply_rewrite import passed_back, passed_on, room
from mesh.dns.wire import DnsQuery, parse_query


def client(name: str = "WwW.example", size: int | None = None, do: bool = False) -> tuple[bytes, DnsQuery]:
    record = DNSRecord.question(name)
    record.header.id = 0x4321
    if size is not None:
        record.add_ar(EDNS0(udp_len=size, flags="do" if do else ""))
    data = bytes(record.pack())
    return data, parse_query(data)


def kept(answers: int, authority: bool = True) -> Received:
    data, query = client()
    wanted = UpstreamQuery.of(query, data)
    reply = DNSRecord.parse(wanted.message(b"\0\1")).reply()
    for number in range(answers):
        reply.add_answer(RR("www.example", QTYPE.A, ttl=60, rdata=A(f"192.0.2.{number}")))
    if authority:
        reply.add_auth(RR("example", QTYPE.NS, ttl=60, rdata=NS("ns.example")))
        reply.add_ar(RR("ns.example", QTYPE.A, ttl=60, rdata=A("192.0.2.53")))
    reply.add_ar(EDNS0(udp_len=1400))
    return received(wanted, bytes(reply.pack()))


@pytest.mark.parametrize(("size", "opts"), [(None, 0), (4096, 1)])
def test_id_spelling_and_edns_are_the_askers(size: int | None, opts: int) -> None:
    data, query = client(size=size)
    message, whole = passed_on(kept(2), query, data, room(query, tcp=False))
    shown = DNSRecord.parse(message)
    assert whole
    assert (shown.header.id, str(shown.q.qname), len(shown.rr)) == (0x4321, "WwW.example.", 2)
    assert (len(shown.auth), len(shown.ar)) == (1, 1 + opts)


def test_what_stands_behind_the_answer_is_left_out_first() -> None:
    data, query = client()
    message, whole = passed_on(kept(29), query, data, limit=512)
    shown = DNSRecord.parse(message)
    assert (whole, shown.header.tc, len(shown.rr), shown.auth, shown.ar) == (False, 0, 29, [], [])


@pytest.mark.parametrize("do", [False, True])
def test_then_whole_records_of_it_and_that_is_said(do: bool) -> None:
    data, query = client(size=600, do=do)
    message, whole = passed_on(kept(60), query, data, room(query, tcp=False))
    shown = DNSRecord.parse(message)
    assert (whole, shown.header.tc, len(shown.ar)) == (False, 1, 1)
    assert len(message) <= 600
    assert len(shown.rr) == (600 - 11 - 29) // 16


def test_with_dnssec_nothing_is_left_out_unsaid() -> None:
    data, query = client(size=512, do=True)
    message, _ = passed_on(kept(29), query, data, room(query, tcp=False))
    assert DNSRecord.parse(message).header.tc == 1


def test_over_tcp_there_is_room_for_all() -> None:
    data, query = client()
    message, whole = passed_on(kept(200), query, data, room(query, tcp=True))
    assert (whole, len(DNSRecord.parse(message).rr)) == (True, 200)


def test_an_error_without_a_question_gets_the_askers() -> None:
    data, query = client(size=1232)
    wanted = UpstreamQuery.of(query, data)
    message, _ = passed_on(received(wanted, b"\0\1\x81\x81" + bytes(8)), query, data, 512)
    shown = DNSRecord.parse(message)
    assert (shown.header.id, shown.header.rcode, str(shown.q.qname)) == (0x4321, 1, "WwW.example.")


def test_a_signed_reply_is_passed_back_as_it_is_or_not_at_all() -> None:
    data, query = client()
    assert passed_back(b"\0\1" + data[2:], data, query, 512) == data
    assert DNSRecord.parse(passed_back(data + bytes(600), data, query, 512)).header.tc == 1
