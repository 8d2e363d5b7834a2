"""What resolvers said → when they told the truth → tables."""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from benchmarks.convergence import served
from benchmarks.convergence.connections import NAMELESS, QUIET, REFUSED, SILENT, Attempt, Connections, Victim
from benchmarks.convergence.prober import addresses, query
from benchmarks.convergence.report import DOCKER, OURS, Beginning, Ending, Sent, connection_tables, tables
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


def connected(*attempts: Attempt) -> Connections:
    connections = Connections()
    for one in attempts:
        connections.add("x", one)
    return connections


def answered(at: float, task: str) -> Attempt:
    return Attempt(at, task)


A = Victim("a", "10.0.0.1", until=inf, others=True)


def test_the_last_connection_to_a_task_is_the_last_that_it_answered() -> None:
    connections = connected(answered(1, "a"), answered(2, "b"), answered(3, "a"), answered(4, "b"))
    assert connections.last("x", A, 0, LATER) == 3
    assert connections.paths() == ("x",)


@pytest.mark.parametrize(
    ("attempt", "victim", "counts"),
    [
        (Attempt(3, "", REFUSED), A, True),
        (Attempt(3, "", SILENT), A, True),
        (Attempt(3, "", SILENT, to="10.0.0.1"), A, True),
        (Attempt(3, "", REFUSED, to="10.0.0.9"), A, False),  # one that has just begun and does not listen yet
        (Attempt(3, "", NAMELESS), A, False),
        (Attempt(3, "", REFUSED), replace(A, until=3), False),  # another one has ended meanwhile
        (Attempt(3, "", REFUSED), replace(A, others=False), False),  # the rules know that there is none
        (Attempt(3, "", SILENT), replace(A, others=False), True),
    ],
)
def test_a_connection_that_failed_was_sent_to_who_ended(
    attempt: Attempt, victim: Victim, counts: bool
) -> None:
    connections = connected(answered(1, "a"), answered(2, "b"), attempt, answered(4, "b"))
    assert connections.last("x", victim, 0, LATER) == (3 if counts else 1)
    assert connections.failed("x", victim, 0) == ({attempt.failure: 1} if counts else {})


def test_more_may_come_for_a_while() -> None:
    connections = connected(answered(1, "a"), answered(2, "b"))
    assert connections.last("x", A, 0, 1 + QUIET / 2) is None
    assert connections.last("x", A, 0, 1 + QUIET) == 1


def test_a_task_that_gets_none_any_more_had_its_last_before() -> None:
    assert connected(answered(1, "a"), answered(5, "b")).last("x", A, 3, LATER) == 3


def test_connections_are_told_when_they_end_not_as_they_began() -> None:
    connections = connected(answered(2, "b"), answered(3, "b"), Attempt(1, "", SILENT))
    assert connections.last("x", A, 0, LATER) == 1
    assert connections.last("x", A, 1.5, LATER) == 1.5


def test_last_connections_ours_and_dockers() -> None:
    sent = [
        Sent("rm", "same node", 1.0, {OURS: 1.1, DOCKER: 1.4}, {OURS: {SILENT: 1}, DOCKER: {REFUSED: 20}}),
        Sent(
            "rm",
            "same node",
            2.0,
            {OURS: 2.3, DOCKER: inf},
            {OURS: {SILENT: 1, REFUSED: 1}, DOCKER: {SILENT: 30}},
        ),
        Sent("rm", "published", 2.0, {OURS: 1.9}, {OURS: {}}),
    ]
    (table,) = connection_tables(sent)
    ours = ("200", "300", "300", "1.5")
    assert list(table.rows) == [
        ("rm", "same node", 2, *ours, "never", "never", "never", "25.0"),
        ("rm", "published", 1, "-100", "-100", "-100", "0.0", "–", "–", "–", "–"),
    ]
    assert json.loads(json.dumps(table.document()))["raw"][1]["last"] == {OURS: 2.3, DOCKER: None}


def test_new_connections_say_which_task_they_came_to() -> None:
    """The programs themselves, on loopback: a task that answers, and one that is not there."""
    task = subprocess.Popen([sys.executable, "-c", Path(served.__file__).read_text()])
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        paths = (f"up=127.0.0.1:{served.PORT}", f"down=127.0.0.1:{nobody.getsockname()[1]}")
        command = [sys.executable, "-m", "benchmarks.convergence.connector", "5", *paths]
        pipe = subprocess.PIPE
        connector = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert connector.stdout is not None
        try:
            said: dict[str, tuple[str, str]] = {}
            for line in connector.stdout:
                one = json.loads(line)
                said[one["who"]] = (one["task"], one["failure"])
                if said == {"up": (socket.gethostname(), ""), "down": ("", REFUSED)}:
                    break
        finally:
            task.terminate()
            connector.communicate(timeout=10)  # its input ends, and so does it
            assert task.wait(10) == 0
