"""Every target, briefly and the same each time: the corpus, then mutations of it. `make fuzz` goes on."""

from random import Random

import dns.flags
import dns.message
import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.wire import DnsQuery, parse_query
from tests.fuzz import engine
from tests.fuzz.__main__ import TARGETS as NAMES
from tests.fuzz.corpus import corpus
from tests.fuzz.parsers import compare
from tests.fuzz.place import quiet
from tests.fuzz.targets import TARGETS

SEED = 20
RUNS = {
    "queries": 40_000,
    "datagrams": 6_000,
    "streams": 3_000,
    "replies": 40_000,
    "parsers": 40_000,
    "headers": 20_000,
    "rules": 20_000,
    "labels": 10_000,
    "heads": 40_000,
    "chunks": 40_000,
    "conversations": 40_000,
    "frames": 20_000,
    "hellos": 10_000,
}
SECONDS = 4.0  # of each, at most: a slow machine does less


@pytest.mark.parametrize("name", NAMES)
def test_nothing_breaks(name: str) -> None:
    with quiet():
        runs = engine.run(TARGETS[name](), corpus(name), SEED, RUNS[name], SECONDS)
    assert runs >= len(corpus(name))


# --- queries that are right ---------------------------------------------------------------------------------

LABEL = st.binary(min_size=1, max_size=63)
NAMES_OF_LABELS = st.lists(LABEL, max_size=8).filter(lambda labels: sum(map(len, labels)) < 240)
OPTIONS = st.lists(st.tuples(st.integers(65001, 65534), st.binary(max_size=40)), max_size=4)
EDNS = st.none() | st.tuples(st.integers(0, 65535), OPTIONS)


@given(NAMES_OF_LABELS, st.integers(0, 65535), st.sampled_from([1, 255]), EDNS)
def test_whatever_another_writes_we_read(
    labels: list[bytes], qtype: int, qclass: int, edns: tuple[int, list[tuple[int, bytes]]] | None
) -> None:
    asked = dns.message.make_query(dns.name.Name([*labels, b""]), "A", flags=dns.flags.RD)
    if edns is not None:
        options = [dns.edns.GenericOption(code, data) for code, data in edns[1]]
        asked.use_edns(0, 0, edns[0], options=options)
    written = bytearray(asked.to_wire())
    at = 12 + len(asked.question[0].name.to_wire())
    written[at : at + 4] = qtype.to_bytes(2) + qclass.to_bytes(2)
    compare(bytes(written))
    if qtype not in (41, 251, 252):
        query = parse_query(bytes(written))
        assert isinstance(query, DnsQuery)
        assert (query.question.qtype, query.question.qclass) == (qtype, qclass)


# --- the engine ---------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        made: list[bytes] = []
        engine.run(made.append, corpus("queries"), seed, 500, 60.0)
        return made

    assert inputs(1) == inputs(1) != inputs(2)


def test_a_bug_is_found_and_its_input_told() -> None:
    def believes_lengths(data: bytes) -> None:
        end = 13 + data[12] if len(data) > 12 else 0
        assert end <= len(data), "a label ends outside the message"

    with pytest.raises(AssertionError) as caught:
        engine.run(believes_lengths, [corpus("queries")[-1][1:]], SEED, 10_000, 60.0)
    note = caught.value.__notes__[0]
    with pytest.raises(AssertionError):
        believes_lengths(bytes.fromhex(note.rpartition(" ")[2]))


def test_inputs_stay_small() -> None:
    rng, pool = Random(SEED), [bytes(4000)]
    assert max(len(engine.mutated(rng, pool)) for _ in range(2000)) <= engine.SIZE_MAX
