"""What resolvers said → when they told the truth → tables."""

from math import inf

import pytest

from benchmarks.convergence.prober import addresses, query
from benchmarks.convergence.report import DOCKER, OURS, Beginning, Ending, tables
from benchmarks.convergence.watch import HOLD, Watch
from mesh.dns.wire import parse_query


def watched(*changes: tuple[float, str]) -> Watch:
    watch = Watch()
    for at, named in changes:
        watch.add("x", at, frozenset(named.split()))
    return watch


LATER = 100.0


def test_an_address_is_gone_with_the_first_answer_without_it() -> None:
    watch = watched((1, "a b"), (2, "b"), (3, "b c"))
    assert watch.gone("x", "a", LATER) == 2
    assert watch.gone("x", "b", LATER) is None  # still named
    assert watch.gone("x", "never", LATER) is None
    assert watch.gone("nobody", "a", LATER) is None


def test_an_address_that_came_back_was_not_gone() -> None:
    watch = watched((1, "a b"), (2, "b"), (3, "a b"), (4, ""))
    assert watch.gone("x", "a", LATER) == 4


def test_a_moment_without_it_does_not_count() -> None:
    watch = watched((1, "a"), (2, ""))
    assert watch.gone("x", "a", 2 + HOLD / 2) is None
    assert watch.gone("x", "a", 2 + HOLD) == 2


def test_an_address_is_known_with_the_first_answer_that_names_it_anew() -> None:
    watch = watched((1, "a"), (2, "a b"), (3, "b"), (4, "a b"))
    assert watch.known("x", "b", since=0) == 2
    assert watch.known("x", "a", since=2.5) == 4  # its second life
    assert watch.known("x", "b", since=2.5) is None
    assert watch.now("x") == {"a", "b"}


NAME = b"\5tasks\3web\0"
HEAD = b"\0\1\x81\x80\0\1\0\2\0\0\0\0" + NAME + b"\0\1\0\1"


@pytest.mark.parametrize("owner", [b"\xc0\x0c", NAME])  # Docker writes names out, ours are pointers
def test_addresses_of_a_reply(owner: bytes) -> None:
    def record(kind: int, data: bytes) -> bytes:
        return owner + bytes((0, kind, 0, 1, 0, 0, 0, 5, 0, len(data))) + data

    assert addresses(HEAD + record(1, bytes((10, 0, 0, 9))) + record(1, bytes((10, 0, 0, 1)))) == [
        "10.0.0.1",
        "10.0.0.9",
    ]
    assert addresses(HEAD + record(28, bytes(16)) + record(1, bytes((10, 0, 0, 1)))) == ["10.0.0.1"]


def test_a_question_is_one() -> None:
    question = parse_query(query("tasks.web")).question
    assert (question.name, question.qtype) == ("tasks.web", 1)


def test_ours_and_dockers_side_by_side() -> None:
    endings = [
        Ending("rm", command=1.0, end=1.2, gone={OURS: 1.1, DOCKER: 1.5}),
        Ending("rm", command=2.0, end=2.2, gone={OURS: 2.3, DOCKER: inf}),
        Ending("kill", command=3.0, end=3.0, gone={OURS: 3.5, DOCKER: 3.25}),
    ]
    from_end, from_command, begun = tables(endings, [Beginning(1.0, {OURS: 1.5, DOCKER: 1.75})])
    assert list(from_end.rows) == [
        ("rm", 2, "0", "100", "100", "never", "never", "never", "never"),
        ("kill", 1, "500", "500", "500", "250", "250", "250", "-250"),
    ]
    assert from_command.rows[1][2:] == ("500", "500", "500", "250", "250", "250", "-250")
    assert begun.rows[0] == ("any", 1, "500", "500", "500", "750", "750", "750", "250")


def test_what_was_never_told_is_json_all_the_same() -> None:
    never = tables([Ending("kill", 1.0, 1.0, {OURS: inf, DOCKER: inf})], [])[0]
    assert never.rows[0][2:] == ("never",) * 6 + ("–",)
    assert never.document()["raw"][0]["gone"] == {OURS: None, DOCKER: None}


def test_nothing_measured_is_an_empty_table() -> None:
    assert [list(table.rows) for table in tables([], [])] == [[], [], []]
