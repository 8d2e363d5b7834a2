"""Which queries are logged, and what a line says."""

import logging

import pytest
from dnslib import QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.config import QUERY_LOG_ANSWERS, QUERY_LOG_PER_SECOND
from mesh.dns.query_log import QueryLog
from mesh.dns.scope import Scope

WEB = Scope(container="0123456789abcdef")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reply(*addresses: str) -> bytes:
    record = DNSRecord(DNSHeader(id=7, qr=1), q=DNSQuestion("web.test"))
    for address in addresses:
        record.add_answer(RR("web.test", QTYPE.A, ttl=5, rdata=A(address)))
    return bytes(record.pack())


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [record.__dict__["fields"] for record in caplog.records]


@given(st.integers(1, 200), st.lists(st.integers(1, 64), max_size=60))
def test_every_nth_query_is_due_however_they_come_in_batches(every: int, batches: list[int]) -> None:
    log = QueryLog(1 / every, Clock())
    seen, due = 0, []
    for count in batches:
        due += [seen + position for position in log.due(count)]
        seen += count
    assert due == list(range(0, seen, every))


def test_a_line_says_who_asked_what_and_what_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    QueryLog(0.5, Clock()).write(WEB, reply("10.0.0.1", "10.0.0.2"), "local", 0.000123, tcp=False)
    assert lines(caplog) == [
        {
            "asker": "0123456789ab",
            "name": "web.test.",
            "type": "A",
            "rcode": "NOERROR",
            "answers": ["10.0.0.1", "10.0.0.2"],
            "source": "local",
            "transport": "udp",
            "microseconds": 123,
            "one_in": 2,
        }
    ]


def test_a_second_has_so_many_lines_and_the_rest_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    log = QueryLog(1, clock)
    for _ in range(QUERY_LOG_PER_SECOND + 5):
        log.write(WEB, reply(), "cache", 0.0, tcp=True)
    assert len(caplog.records) == QUERY_LOG_PER_SECOND
    clock.now += 1
    log.write(WEB, reply(), "cache", 0.0, tcp=True)
    log.write(WEB, reply(), "cache", 0.0, tcp=True)
    assert [line.get("left_out") for line in lines(caplog)[-2:]] == [5, None]


def test_large_replies_are_cut_and_unreadable_ones_have_their_header_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    log = QueryLog(1, Clock())
    log.write(WEB, reply(*(f"10.0.0.{n}" for n in range(20))), "local", 0.0, tcp=True)
    log.write(Scope(), reply("10.0.0.1")[:-3], "forward", 0.0, tcp=True)
    whole, broken = lines(caplog)
    assert isinstance(answers := whole["answers"], list)
    assert len(answers) == QUERY_LOG_ANSWERS + 1
    assert answers[-1] == "and 12 more"
    assert (broken["asker"], broken["rcode"], broken["name"]) == ("node", "NOERROR", "")
