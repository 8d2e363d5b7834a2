"""Messages as bytes. dnslib, which the code under test does not use for them, is the second opinion."""

from ipaddress import ip_address

import pytest
from dnslib import EDNS0, QTYPE, RR, SOA, DNSHeader, DNSQuestion, DNSRecord, EDNSOption
from dnslib import A as AData
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns import wire
from mesh.dns.forward.reply_parser import ReplyMatch, aged, match, parse_reply
from mesh.dns.wire import BadQuery, DnsQuery, DnsQuestion, QType, Rcode, parse_query, reply_tail
from mesh.errors import WireError

WEB = b"\x03web\x00\x00\x01\x00\x01"


def message(body: bytes = WEB, flags: int = 0x0100, counts: tuple[int, ...] = (1, 0, 0, 0)) -> bytes:
    return wire.HEADER.pack(0x1234, flags, *counts) + body


def opt(size: int = 4096, ttl: int = 0, data: bytes = b"", owner: bytes = b"\0") -> bytes:
    return owner + wire.RECORD.pack(QType.OPT, size, ttl, len(data)) + data


def refused(data: bytes) -> Rcode | None:
    with pytest.raises(BadQuery) as caught:
        parse_query(data)
    return caught.value.rcode


# --- queries ------------------------------------------------------------------------------------------------


def test_a_plain_query() -> None:
    assert parse_query(message()) == DnsQuery(0x0100, DnsQuestion("web", QType.A, 1, WEB))


def test_a_query_with_edns() -> None:
    query = parse_query(message(WEB + opt(4096, wire.DO), counts=(1, 0, 0, 1)))
    assert query.edns == wire.Edns(4096, True, False)
    assert query.limit(tcp=False) == 1232
    assert query.limit(tcp=True) == 65535


@pytest.mark.parametrize(("size", "limit"), [(0, 512), (511, 512), (700, 700), (65535, 1232)])
def test_the_reply_may_be_as_large_as_edns_says_within_reason(size: int, limit: int) -> None:
    assert parse_query(message(WEB + opt(size), counts=(1, 0, 0, 1))).limit(tcp=False) == limit


@pytest.mark.parametrize("data", [b"", b"\0" * 11, message(flags=0x8100)])
def test_what_gets_no_reply(data: bytes) -> None:
    assert refused(data) is None


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    assert refused(message(flags=opcode << 11)) is Rcode.NOTIMP


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (2, 0, 0, 0), (1, 2, 0, 0), (1, 0, 2, 0), (1, 0, 0, 3)])
def test_unexpected_counts_are_format_errors(counts: tuple[int, ...]) -> None:
    assert refused(message(counts=counts)) is Rcode.FORMERR


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x03we",
        b"\x03web",
        b"\x03web\x00\x00\x01\x00",
        b"\xc0\x0c\x00\x01\x00\x01",  # a pointer, to itself
        b"\x03web\xc0\x0c\x00\x01\x00\x01",
        b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",  # a label of 64 octets
        (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01",  # a name of 257
    ],
)
def test_broken_questions_are_format_errors(body: bytes) -> None:
    assert refused(message(body)) is Rcode.FORMERR


def test_the_longest_name_is_read() -> None:
    body = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\x00\x00\x01\x00\x01"
    assert len(parse_query(message(body)).question.name) == 253


@pytest.mark.parametrize(
    "extra", [b"", opt()[:-1], opt(data=b"1234")[:-1], opt() + opt(), opt(owner=b"\x01a\0")]
)
def test_broken_edns_is_a_format_error(extra: bytes) -> None:
    count = 2 if extra == opt() + opt() else 1
    assert refused(message(WEB + extra, counts=(1, 0, 0, count))) is Rcode.FORMERR


def test_an_unknown_edns_version_is_told_ours() -> None:
    data = message(WEB + opt(ttl=1 << 16), counts=(1, 0, 0, 1))
    with pytest.raises(BadQuery) as caught:
        parse_query(data)
    assert caught.value.rcode is Rcode.BADVERS
    reply = DNSRecord.parse(wire.refusal(data, Rcode.BADVERS, caught.value.query))
    assert (reply.header.rcode, reply.ar[0].ttl, str(reply.q.qname)) == (0, 1 << 24, "web.")


def test_a_dot_inside_a_label_does_not_pass_for_one_between_two() -> None:
    assert parse_query(message(b"\x07web.net\x00\x00\x01\x00\x01")).question.name == "web\\.net"
    assert parse_query(message(b"\x03\xff\\ \x00\x00\x01\x00\x01")).question.name == "\\255\\\\\\032"


def test_folding_spares_type_and_class() -> None:
    question = parse_query(message(b"\x03WEB\x00\x00\x41\x00\x01")).question
    assert (question.folded, question.qtype) == (b"\x03web\x00\x00\x41\x00\x01", QType.HTTPS)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_a_documented_error(data: bytes) -> None:
    for read in (parse_query, parse_reply):
        try:
            read(data)
        except WireError:
            pass


@given(st.binary(max_size=100), st.tuples(*[st.integers(0, 3)] * 4), st.integers(0, 0xFFFF))
def test_any_body_behind_a_fair_header_is_too(body: bytes, counts: tuple[int, ...], flags: int) -> None:
    for read in (parse_query, parse_reply):
        try:
            read(message(body, flags, counts))
        except WireError:
            pass


@given(st.integers(0, 60), st.integers(0, 255), st.booleans())
def test_one_flipped_byte_is_harmless(at: int, value: int, edns: bool) -> None:
    data = bytearray(message(WEB + (opt(data=b"abcd") if edns else b""), counts=(1, 0, 0, int(edns))))
    if at < len(data):
        data[at] = value
    try:
        query = parse_query(bytes(data))
    except BadQuery as bad:
        reply = None if bad.rcode is None else wire.refusal(bytes(data), bad.rcode, bad.query)
    else:
        reply = bytes(data[:2]) + reply_tail(query, Rcode.NOERROR)
    if reply is not None:
        parse_reply(reply)


# --- our replies --------------------------------------------------------------------------------------------


def replied(query: DnsQuery, *records: bytes, limit: int = 512, **how: bytes) -> DNSRecord:
    tail = reply_tail(query, Rcode.NOERROR, records, limit=limit, **how)
    assert len(tail) + 2 <= limit
    return DNSRecord.parse(b"\x12\x34" + tail)


def test_a_reply_echoes_question_and_flags() -> None:
    query = parse_query(message(b"\x03WeB\x00\x00\x01\x00\x01", flags=0x0110))
    reply = replied(query, wire.address_record("10.0.0.1", 5))
    assert (reply.header.id, reply.header.qr, reply.header.aa, reply.header.ra) == (0x1234, 1, 0, 1)
    assert (reply.header.rd, reply.header.cd, reply.header.ad) == (1, 1, 0)
    answer = reply.rr[0]
    assert (str(answer.rname), str(answer.rdata), answer.ttl, answer.rclass) == ("WeB.", "10.0.0.1", 5, 1)


def test_records_of_every_kind_of_ours() -> None:
    query = parse_query(message())
    records = (wire.address_record("fd00::1", 5), wire.pointer_record("web.1.x.my_net.", 5))
    assert [str(rr.rdata) for rr in replied(query, *records).rr] == ["fd00::1", "web.1.x.my_net."]
    soa = replied(query, authority=wire.soa_record(7)).auth[0]
    assert (str(soa.rname), soa.ttl, soa.rdata.times[4]) == ("web.", 7, 7)


def test_services_and_their_glue() -> None:
    query = parse_query(message())
    record = wire.service_record("0 1 8080 web.1.x.my_net.", 5)
    at = len(query.question.wire) + 12 + wire.SRV_TARGET
    glue = [wire.glue_record(at, b"", address, 5) for address in ("10.0.0.1", "fd00::1")]
    reply = replied(query, record, additional=glue)
    assert [str(rr.rdata) for rr in reply.rr] == ["0 1 8080 web.1.x.my_net."]
    assert [(str(rr.rname), str(rr.rdata)) for rr in reply.ar] == [
        ("web.1.x.my_net.", "10.0.0.1"),
        ("web.1.x.my_net.", "fd00::1"),
    ]
    with pytest.raises(WireError):
        wire.service_record(f"0 1 80 {'x' * 64}.", 5)


@given(st.text("0123456789.:af", max_size=20) | st.ip_addresses().map(str))
def test_an_address_is_packed_as_the_library_does(text: str) -> None:
    try:
        expected = ip_address(text).packed
    except ValueError:
        with pytest.raises(ValueError):
            wire.address_record(text, 5)
    else:
        assert wire.address_record(text, 5).endswith(expected)


def test_edns_is_answered_with_edns() -> None:
    query = parse_query(message(WEB + opt(ttl=wire.DO), counts=(1, 0, 0, 1)))
    reply = replied(query, wire.address_record("10.0.0.1", 5), limit=1232)
    assert (QTYPE[reply.ar[0].rtype], reply.ar[0].edns_len, reply.ar[0].edns_do) == ("OPT", 1232, 1)
    assert replied(parse_query(message())).ar == []


@pytest.mark.parametrize(("count", "kept", "truncated"), [(30, 30, 0), (31, 30, 1), (200, 30, 1)])
def test_what_does_not_fit_is_left_out_and_said(count: int, kept: int, truncated: int) -> None:
    records = [wire.address_record(f"10.0.0.{n}", 5) for n in range(count)]
    reply = replied(parse_query(message()), *records)
    assert (len(reply.rr), reply.header.tc) == (kept, truncated)


@pytest.mark.parametrize("text", ["a" * 64, "a..b", ".a", "", ".".join(["a" * 63] * 4)])
def test_what_is_no_name_cannot_be_encoded(text: str) -> None:
    with pytest.raises(WireError):
        wire.encode_name(text)


# --- upstreams' replies -------------------------------------------------------------------------------------


def upstream_reply(
    *, rcode: int = 0, answers: tuple[int, ...] = (), soa: int | None = None, **flags: int
) -> bytes:
    record = DNSRecord(DNSHeader(id=0x1234, qr=1, ra=1, rcode=rcode, **flags), q=DNSQuestion("web"))
    for number, ttl in enumerate(answers):
        record.add_answer(RR("web", QTYPE.A, ttl=ttl, rdata=AData(f"10.0.0.{number}")))
    if soa is not None:
        record.add_auth(RR(".", QTYPE.SOA, ttl=900, rdata=SOA("a.", "b.", (1, 2, 3, 4, soa))))
    record.add_ar(EDNS0(udp_len=1232))
    return bytes(record.pack())


@pytest.mark.parametrize(
    ("reply", "ttl"),
    [
        (upstream_reply(answers=(300, 60)), 60),
        (upstream_reply(answers=(0, 60)), 0),
        (upstream_reply(answers=(300,), tc=1), 0),
        (upstream_reply(rcode=3, soa=40), 40),
        (upstream_reply(rcode=3, soa=4000), 900),  # the SOA's own TTL if that is less
        (upstream_reply(soa=40), 40),
        (upstream_reply(rcode=3), 0),
        (upstream_reply(rcode=2, soa=40), 0),
    ],
)
def test_how_long_a_reply_may_be_kept(reply: bytes, ttl: int) -> None:
    assert parse_reply(reply).ttl == ttl


def test_ttls_are_counted_down_and_nothing_else_changes() -> None:
    reply = upstream_reply(answers=(300, 60))
    older = DNSRecord.parse(aged(reply, parse_reply(reply).ttl_offsets, 100))
    assert [rr.ttl for rr in older.rr] == [200, 0]
    assert older.ar[0].edns_len == 1232
    assert aged(reply, parse_reply(reply).ttl_offsets, 0) == reply


def test_only_the_reply_to_the_question_is_taken() -> None:
    query = message()
    good = upstream_reply(answers=(1,))
    assert match(query, good) is ReplyMatch.YES
    assert match(query, good.replace(b"\x03web", b"\x03WEB")) is ReplyMatch.CASE
    for other in (b"", good[:11], b"\0\0" + good[2:], query):
        assert match(query, other) is ReplyMatch.ID
    nothing = message(b"", flags=0x8180, counts=(0, 0, 0, 0))
    for other in (good.replace(b"\x03web", b"\x03wob"), good[:20], nothing):
        assert match(query, other) is ReplyMatch.QUESTION
    assert match(query, message(b"", flags=0x8181, counts=(0, 0, 0, 0))) is ReplyMatch.YES


def test_options_of_edns_are_noticed() -> None:
    record = DNSRecord.question("web")
    record.add_ar(EDNS0(opts=[EDNSOption(10, b"cookie12")]))
    edns = parse_query(bytes(record.pack())).edns
    assert edns is not None
    assert edns.options


@pytest.mark.parametrize(
    ("counts", "body"),
    [((1, 1, 0, 0), WEB + opt()), ((1, 0, 1, 0), WEB + opt()), ((1, 0, 0, 2), WEB + opt() + opt())],
)
def test_an_upstream_with_opt_in_the_wrong_place_breaks_the_protocol(
    counts: tuple[int, ...], body: bytes
) -> None:
    with pytest.raises(WireError):
        parse_reply(message(body, flags=0x8180, counts=counts))
