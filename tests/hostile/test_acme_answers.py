"""A certificate authority that answers anything: the order fails with words, and it is tried again later.

What fails names the authority and the host; nobody else is asked, no other certificate is touched, nothing of
ours fails, and a good service beside it is answered throughout.
"""

import asyncio
import itertools
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import acme.client
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.acme import bounded_http
from mesh.acme import client as authority_module
from mesh.acme.certificate_store import AcmeStore
from mesh.acme.client import Authority, Proof
from mesh.acme.issuer import Issuer
from mesh.acme.self_check import SelfCheck
from mesh.internal_errors import ERRORS
from tests.acme.test_certificate_store import pem
from tests.hostile.node import Node, a_node
from tests.hostile.test_blast_radius import LONG, faults, mutated, values
from tests.support.acme_server import KINDS, PROBLEM, AcmeServer, Answer, Sent, acme_server
from tests.support.waiting import running, until

HOST = ("shop.example",)
GOOD = ("good.example",)  # issued before, by the authority when it was well
EXAMPLES = settings(max_examples=60, deadline=None)
PATIENCE = 0.3  # seconds for an answer, in tests of those that never end


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits a second before it looks, without being asked; and it is on a thread."""
    monkeypatch.setattr(acme.client, "time", SimpleNamespace(sleep=lambda _: time.sleep(0.001)))
    monkeypatch.setattr(authority_module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(authority_module, "PROVE_SECONDS", 0.5)
    monkeypatch.setattr(authority_module, "ISSUE_SECONDS", 0.5)


class Stand:
    """An authority, a node that orders of it, and a stranger that nobody should ask."""

    def __init__(self, server: AcmeServer, node: Node, folder: Path) -> None:
        self.server, self.node, self._folder = server, node, folder
        self._numbers = itertools.count()
        self.stranger_port = 0
        self.asked_strangers = 0

    async def stranger(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked_strangers += 1
        writer.close()

    async def order(self, twist: Callable[[str, Answer], Sent]) -> str:
        """Of the authority as it is now. Returns why there is none, as `mesh status` has it; "": there is."""
        ERRORS.clear()
        self.server.twist = twist
        kept = AcmeStore(str(self._folder / str(next(self._numbers))), self.server.directory)
        await kept.put(pem(*GOOD))
        before = kept.have()
        authority = Authority(self.server.directory)
        issuer = Issuer(
            authority, kept, lambda: [HOST], lambda _: False, lambda: True, self._settled, self._prepare
        )
        try:
            async with running(issuer.run()):
                await until(lambda: issuer.orders.total(), "an order has ended")
        finally:
            authority.close()
        problems = [one.message for one in issuer.problems()]
        assert faults() == {}
        assert kept.have() | before == kept.have(), "what was there is there"
        assert set(kept.have()) == {GOOD} if problems else {GOOD, HOST}
        assert self.asked_strangers == 0
        await self.node.answers()
        if not problems:
            return ""
        (problem,) = problems
        assert problem.startswith(f"no certificate: {self.server.directory} ")
        assert problem.endswith("; again in 5 minutes")
        assert problem.isprintable()
        assert len(problem) < 1000
        return problem.removeprefix(f"no certificate: {self.server.directory} ")

    async def _settled(self) -> None:
        """Nobody else has any."""

    async def _prepare(self, proofs: Sequence[Proof]) -> None:
        assert {one.name for one in proofs} <= set(HOST)
        await SelfCheck(list, 1).prepare(proofs)


@asynccontextmanager
async def a_stand(folder: Path) -> Any:
    async with acme_server() as server, a_node() as node:
        made = Stand(server, node, folder)
        async with await asyncio.start_server(made.stranger, "127.0.0.1", 0) as listener:
            made.stranger_port = listener.sockets[0].getsockname()[1]
            yield made


@contextmanager
def for_examples(folder: Path) -> Iterator[tuple[Stand, Callable[[Awaitable[None]], None]]]:
    """One stand for all of them, and what runs a step of one on its loop."""

    async def awaited(step: Awaitable[None]) -> None:
        await step

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = a_stand(folder)
        stand = runner.run(made.__aenter__())
        try:
            yield stand, lambda step: runner.run(awaited(step))
        finally:
            runner.run(made.__aexit__(None, None, None))


def only(kind: str, instead: Callable[[Answer], Sent]) -> Callable[[str, Answer], Sent]:
    return lambda asked, answer: instead(answer) if asked == kind else answer


# --- any answer ---

kinds = st.sampled_from(KINDS)
statuses = st.integers(100, 999) | st.sampled_from(
    [200, 201, 204, 301, 307, 308, 400, 403, 409, 429, 500, 503]
)
names = st.sampled_from(
    ["Location", "Link", "Replay-Nonce", "Retry-After", "Content-Type", "Content-Length", "Set-Cookie"]
) | st.sampled_from(["Content-Encoding", "Transfer-Encoding", "Connection"])
texts = (
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
    | st.sampled_from(["", LONG, "-1", "chunked", "gzip", "Thu, 01 Jan 1970 00:00:00 GMT", "x" * 9000])
    | st.sampled_from([">;rel=up", '<x>;rel="up"', "http://[::1", "http://\x7f/", "file:///etc/passwd"])
)
heads = st.sampled_from(
    [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 ", b"\r\n"]
)
documents = st.recursive(values, lambda inner: st.dictionaries(st.text(max_size=9), inner, max_size=4))


def test_any_bytes(tmp_path: Path) -> None:
    with for_examples(tmp_path) as (stand, run):

        @EXAMPLES
        @given(kinds, heads, st.binary(max_size=300))
        def examine(kind: str, head: bytes, rest: bytes) -> None:
            async def step() -> None:
                await stand.order(only(kind, lambda _: head + rest))

            run(step())

        examine()


def test_any_status_and_fields(tmp_path: Path) -> None:
    with for_examples(tmp_path) as (stand, run):

        @EXAMPLES
        @given(kinds, st.none() | statuses, st.dictionaries(names, st.none() | texts, max_size=3))
        def examine(kind: str, status: int | None, fields: dict[str, str | None]) -> None:
            def instead(answer: Answer) -> Answer:
                for name, value in fields.items():
                    answer = answer.without(name) if value is None else answer.having(name, value)
                return Answer(status or answer.status, answer.body, answer.fields, answer.type)

            async def step() -> None:
                await stand.order(only(kind, instead))

            run(step())

        examine()


def test_any_document(tmp_path: Path) -> None:
    """What it should have been with parts in other places, or anything that is JSON."""
    with for_examples(tmp_path) as (stand, run):

        @EXAMPLES
        @given(st.data(), kinds, st.sampled_from([None, 200, 403]))
        def examine(data: st.DataObject, kind: str, status: int | None) -> None:
            def instead(answer: Answer) -> Answer:
                known = answer.body if isinstance(answer.body, dict) else {"type": "x", "detail": "y"}
                body = data.draw(mutated(known) | documents)
                return Answer(status or answer.status, body, answer.fields, answer.type)

            async def step() -> None:
                await stand.order(only(kind, instead))

            run(step())

        examine()


def test_any_problem_document(tmp_path: Path) -> None:
    """RFC 7807: its fields are shown to the operator, so they may be anything."""
    known = {
        "type": "urn:ietf:params:acme:error:compound",
        "title": "t",
        "detail": "d",
        "identifier": {"type": "dns", "value": "x"},
        "subproblems": [{"type": "urn:ietf:params:acme:error:dns", "detail": "e"}],
    }
    with for_examples(tmp_path) as (stand, run):

        @EXAMPLES
        @given(
            st.sampled_from(["account", "order", "authorization", "challenge", "finalize"]), mutated(known)
        )
        def examine(kind: str, body: Any) -> None:
            async def step() -> None:
                why = await stand.order(only(kind, lambda answer: Answer(403, body, answer.fields, PROBLEM)))
                assert why

            run(step())

        examine()


# --- by name ---


@pytest.fixture
async def stand(tmp_path: Path) -> Any:
    async with a_stand(tmp_path) as made:
        yield made


async def test_as_it_should_be(stand: Stand) -> None:
    assert await stand.order(lambda _, answer: answer) == ""
    assert set(stand.server.asked) == set(KINDS)


@pytest.mark.parametrize("kind", ["directory", "nonce", "order", "challenge", "certificate"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(stand: Stand, kind: str, status: int) -> None:
    there = f"http://127.0.0.1:{stand.stranger_port}/v1/status"
    why = await stand.order(
        only(kind, lambda answer: Answer(status, b"", answer.fields).having("Location", there))
    )
    assert "redirects to" in why


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("directory", ("newNonce",)),
        ("directory", ("newAccount",)),
        ("directory", ("newOrder",)),
        ("order", ("authorizations", 0)),
        ("order", ("finalize",)),
        ("authorization", ("challenges", 0, "url")),
        ("finalize", ("certificate",)),
        ("order", ("certificate",)),
    ],
)
async def test_an_address_elsewhere_is_not_asked(stand: Stand, kind: str, place: tuple[Any, ...]) -> None:
    def instead(answer: Answer) -> Answer:
        body = json.loads(json.dumps(answer.body))
        *way, last = place
        holder = body
        for one in way:
            holder = holder[one]
        if last in holder if isinstance(holder, dict) else True:
            holder[last] = f"http://127.0.0.1:{stand.stranger_port}/x"
        return Answer(answer.status, body, answer.fields, answer.type)

    why = await stand.order(only(kind, instead))
    # What `finalize` says of the certificate is asked for anew.
    assert why == "" if (kind, place) == ("finalize", ("certificate",)) else "not its own" in why


@pytest.mark.parametrize("kind", KINDS)
async def test_more_than_is_read(stand: Stand, kind: str) -> None:
    def pieces(_: Answer) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nReplay-Nonce: bm9uY2U\r\n\r\n"
        while True:
            yield b" " * 65536

    why = await stand.order(only(kind, pieces))
    if kind == "nonce":  # asked for by HEAD, so what comes is no body (RFC 9110, section 9.3.2)
        assert why == "" or "not HTTP" in why
    else:
        assert "more than" in why
    assert stand.server.sent < 64 * 1024 * 1024


@pytest.mark.parametrize(
    "sent",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        (b"", b""),
    ],
    ids=["body", "chunks", "fields", "field", "continue", "hints", "silence"],
)
async def test_an_answer_without_an_end(
    stand: Stand, sent: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small pieces for as long as anybody listens: there is a time for a whole answer."""
    monkeypatch.setattr(bounded_http, "REQUEST_SECONDS", PATIENCE)

    def pieces(_: Answer) -> Iterator[bytes]:
        yield sent[0]
        yield from itertools.repeat(sent[1])

    why = await stand.order(only("directory", pieces))
    assert "does not answer" in why or "what is not HTTP" in why or "more than" in why


async def test_orders_that_take_for_ever_are_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand authorizations to look at, each answered well."""
    monkeypatch.setattr(bounded_http, "ORDER_SECONDS", PATIENCE)

    def instead(answer: Answer) -> Answer:
        body = answer.body | {"authorizations": answer.body["authorizations"] * 10_000}
        return Answer(answer.status, body, answer.fields, answer.type)

    assert "for an order" in await stand.order(only("order", instead))


@pytest.mark.parametrize("name", ["other.example", "a\r\nX: y", "", None, 5, {}, "shop.example."])
async def test_a_proof_for_another_name(stand: Stand, name: Any) -> None:
    def instead(answer: Answer) -> Answer:
        body = answer.body | {"identifier": {"type": "dns", "value": name}}
        return Answer(answer.status, body, answer.fields, answer.type)

    assert "which was not ordered" in await stand.order(only("authorization", instead))


@pytest.mark.parametrize(
    ("kind", "instead", "why"),
    [
        ("account", lambda answer: answer.without("Location"), "without saying where"),
        ("account", lambda answer: answer.having("Location", "x" * 4000), "without saying where"),
        ("order", lambda answer: Answer(403, {"detail": 5}, answer.fields, PROBLEM), r"\(int\)"),
        (
            "order",
            lambda answer: Answer(403, {"detail": "a\x1b[2Jb\nc"}, answer.fields, PROBLEM),
            "a.\\[2Jb c",
        ),
        ("order", lambda answer: Answer(500, b"<html>", answer.fields), "status 500"),
        ("order", lambda answer: Answer(429, b"", answer.fields), "status 429"),
        ("order", lambda answer: Answer(200, b"[" * 100_000, answer.fields), "not ACME"),
        ("order", lambda answer: Answer(200, b"9" * 5000, answer.fields), "not ACME|Extra data|Exceeds"),
        ("authorization", lambda answer: Answer(200, {"status": "pending"}, answer.fields), "not ACME"),
        ("certificate", lambda answer: Answer(200, b"", answer.fields), "has issued what cannot be used"),
        ("certificate", lambda answer: Answer(200, b"x" * 200_000, answer.fields), "a chain of more than"),
        (
            "certificate",
            lambda answer: Answer(200, pem("other.example").encode(), answer.fields),
            "has issued what cannot be used: the certificate is not of its key",
        ),
    ],
)
async def test_answers_by_name(
    stand: Stand, kind: str, instead: Callable[[Answer], Answer], why: str
) -> None:
    assert re.search(why, await stand.order(only(kind, instead)))


async def test_nobody_there() -> None:
    authority = Authority("http://127.0.0.1:1/directory")
    with pytest.raises(authority_module.CertificateError, match=r"does not answer: Connection refused"):
        await authority.register(0.0)
    authority.close()
