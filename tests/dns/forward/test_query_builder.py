"""What is sent to upstreams, and what is made of their replies."""

import pytest
from dnslib import CNAME, EDNS0, QTYPE, RR, SOA, A, DNSHeader, DNSQuestion, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.forward.query_builder import (
    COOKIE,
    PADDING,
    Received,
    UpstreamQuery,
    is_answer,
    opt,
    passed_options,
    received,
    spelled,
)
from mesh.dns.forward.reply_parser import ReplyMatch, match, parse_reply
from mesh.dns.wire import parse_query
from mesh.errors import WireError

SUBNET, ERROR_TEXT = 8, 15


def client(name: str = "Www.Example", *options: EDNSOption, edns: bool = True, **how: object) -> bytes:
    record = DNSRecord(DNSHeader(id=7, rd=1), q=DNSQuestion(name))
    if edns:
        record.add_ar(EDNS0(udp_len=4096, opts=list(options), **how))
    return bytes(record.pack())


def upstream_query(data: bytes) -> UpstreamQuery:
    return UpstreamQuery.of(parse_query(data), data)


def test_the_message_is_one_of_our_own() -> None:
    sent = DNSRecord.parse(upstream_query(client(flags="do")).message(b"\x12\x34"))
    assert (sent.header.id, sent.header.rd, str(sent.q.qname)) == (0x1234, 1, "www.example.")
    assert (sent.ar[0].edns_len, sent.ar[0].edns_do) == (1232, 1)
    assert DNSRecord.parse(upstream_query(client()).message(b"\0\0", edns=False)).ar == []


def test_clients_with_and_without_edns_want_the_same() -> None:
    assert upstream_query(client()) == upstream_query(client("WWW.example", edns=False))
    assert upstream_query(client()) != upstream_query(client(flags="do"))


def test_only_options_for_the_resolver_are_passed_on() -> None:
    data = client(
        "x", EDNSOption(COOKIE, b"12345678"), EDNSOption(SUBNET, b"\0\1\0\0"), EDNSOption(PADDING, b"")
    )
    query = upstream_query(data)
    [sent] = DNSRecord.parse(query.message(b"\0\0")).ar[0].rdata
    assert (sent.code, sent.data) == (SUBNET, b"\0\1\0\0")
    assert not query.shareable
    assert upstream_query(client("x", EDNSOption(COOKIE, b"12345678"))) == upstream_query(client("x"))


def test_a_signed_query_stays_as_it_is() -> None:
    tsig = b"\x03key\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x03abc"
    plain = client(edns=False)
    data = plain[:10] + b"\0\1" + plain[12:] + tsig
    query = upstream_query(data)
    assert query.message(b"\xab\xcd", case=-1) == b"\xab\xcd" + data[2:]
    assert not query.shareable


@given(st.from_regex(r"[a-z0-9_-]{1,20}(\.[a-z]{1,20}){0,3}", fullmatch=True), st.integers(0))
def test_any_spelling_is_the_same_name_and_only_the_exact_one_matches(name: str, case: int) -> None:
    query = upstream_query(client(name))
    message = query.message(b"\1\2", case)
    assert message.lower() == query.message(b"\1\2").lower()
    reply = bytes(DNSRecord.parse(message).reply().pack())
    assert match(message, reply) is ReplyMatch.YES
    if spelled(query.question, case) != query.question:
        assert match(query.message(b"\1\2"), reply) is ReplyMatch.CASE
    assert match(query.message(b"\1\3", case), reply) is ReplyMatch.ID


@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 255))
def test_what_differs_in_id_or_question_never_matches(noise: bytes, at: int, value: int) -> None:
    message = upstream_query(client()).message(b"\1\2", case=0b1010101)
    good = bytes(DNSRecord.parse(message).reply().pack())
    changed = bytearray(good)
    changed[at % len(good)] = value
    question = slice(12, 12 + 13 + 4)
    if match(message, bytes(changed)) is ReplyMatch.YES:
        assert changed[:2] == good[:2]
        assert changed[question] == good[question] or changed[4:6] == b"\0\0"
    assert match(message, noise) is not ReplyMatch.YES or noise[:2] == message[:2]


def reply_to(message: bytes, *, owner: str = "www.example", additional: bool = False) -> bytes:
    """From a server that writes names out in full, with OPT before the glue."""
    record = DNSRecord.parse(message).reply()
    record.add_answer(RR(owner, QTYPE.A, ttl=60, rdata=A("192.0.2.1")))
    record.add_ar(
        EDNS0(udp_len=1400, opts=[EDNSOption(ERROR_TEXT, b"\0\3"), EDNSOption(COOKIE, b"12345678")])
    )
    packed = bytes(record.pack())
    if not additional:
        return packed
    glue = b"\x01g\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x01"
    return packed[:10] + b"\0\2" + packed[12:] + glue


@pytest.mark.parametrize("additional", [False, True])
def test_a_reply_is_kept_in_lower_case_and_without_edns(additional: bool) -> None:
    query = upstream_query(client())
    kept = received(query, reply_to(query.message(b"\1\2", case=-1), additional=additional))
    shown = DNSRecord.parse(kept.message)
    assert (str(shown.q.qname), shown.ar, len(shown.rr)) == ("www.example.", [], 1)
    assert len(kept.reply.ttl_offsets) == 1
    assert kept.options == b"\0\x0f\0\2\0\3"
    assert kept.cost > len(kept.message)


def test_owners_written_out_in_our_spelling_are_taken_back() -> None:
    query = upstream_query(client())
    full = b"\x03WwW\x07eXaMpLe\x00"
    record = full + b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
    other = b"\x03FtP\x07eXaMpLe\x00" + record[len(full) :]
    header = b"\1\2\x81\x80\0\1\0\2\0\0\0\0"
    kept = received(query, header + full + b"\0\1\0\1" + record + other)
    assert kept.message.count(b"\x03www\x07example\x00") == 2
    assert b"\x03FtP" in kept.message


@given(st.binary(max_size=120))
def test_any_reply_is_kept_or_breaks_the_protocol(noise: bytes) -> None:
    query = upstream_query(client())
    message = query.message(b"\1\2")
    for data in (noise, message[:2] + b"\x81\x80" + message[4:12] + noise, message + noise):
        try:
            assert isinstance(received(query, data), Received)
        except WireError:
            pass


@given(st.binary(max_size=40))
def test_any_options_can_be_sifted(noise: bytes) -> None:
    sifted = passed_options(noise)
    assert passed_options(sifted) == sifted
    assert len(opt(True, sifted)) == 11 + len(sifted)


def record(rcode: int = 0, cname: bool = False, soa: int | None = None) -> bytes:
    made = DNSRecord(DNSHeader(qr=1, rcode=rcode), q=DNSQuestion("x"))
    if cname:
        made.add_answer(RR("x", QTYPE.CNAME, ttl=30, rdata=CNAME("y")))
    if soa is not None:
        made.add_auth(RR(".", QTYPE.SOA, ttl=900, rdata=SOA("a.", "b.", (1, 2, 3, 4, soa))))
    return bytes(made.pack())


@pytest.mark.parametrize(
    ("data", "ttl"),
    [
        (record(cname=True), 0),  # an alias of nothing, and nobody says for how long
        (record(cname=True, soa=600), 30),
        (record(cname=True, soa=10), 10),
        (record(3, cname=True, soa=600), 30),
    ],
)
def test_absence_behind_an_alias(data: bytes, ttl: int) -> None:
    reply = parse_reply(data)
    assert (reply.negative, reply.ttl) == (True, ttl)


@pytest.mark.parametrize(
    ("rcode", "ends"), [(0, True), (1, True), (2, False), (3, True), (4, True), (5, False)]
)
def test_which_replies_end_the_search(rcode: int, ends: bool) -> None:
    assert is_answer(parse_reply(record(rcode))) is ends


def test_errors_of_edns_do_not() -> None:
    bad_version = record()[:11] + b"\1" + record()[12:] + b"\0\0\x29\x04\xd0\x01\0\0\0\0\0"
    assert parse_reply(bad_version).rcode == 16
    assert not is_answer(parse_reply(bad_version))
