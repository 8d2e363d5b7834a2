"""The same requests for three readers: ours, h11 and llhttp (httptools). A request that we take and another
refuses, or understands otherwise, is how requests are smuggled. So every such difference has its reason in
`REFUSED` or `OTHERWISE`, or is a bug of ours. That we refuse more than they do is meant. What we pass on is
written anew: that they must read exactly as we do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from random import Random

import h11
import httptools
import pytest

from mesh.http.codec.h1_body import LAST_CHUNK, ChunkedReader, chunk
from mesh.http.codec.h1_head import CHUNKED, EMPTY_LINES_MAX, RequestHead, RequestReader
from mesh.http.codec.proxy_headers import ClientInfo, request_block
from mesh.http.faults import HttpFault, RequestRefused

SEED = 9112
INPUTS = 15_000
AGREED_MIN = 1_000  # of them all three must take, or the inputs show nothing


class No(Enum):
    REFUSED = "refused"
    WAITS = "waits for more"


@dataclass(frozen=True)
class Taken:
    """What a reader made of a whole request."""

    method: bytes
    target: bytes
    minor: int
    fields: tuple[tuple[bytes, bytes], ...]  # names in lower case
    body: bytes


Outcome = Taken | No


# --- the readers --------------------------------------------------------------------------------------------


def read(data: bytes) -> tuple[RequestHead, bytes, bytes] | No:
    """Head, body and trailers."""
    for _ in range(EMPTY_LINES_MAX):
        data = data.removeprefix(b"\r\n")
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return No.WAITS
    rest = data[end:]
    try:
        head = RequestReader().read(data[:end])
        if head.length == CHUNKED:
            chunks = ChunkedReader(HttpFault.BAD_BODY)
            body = chunks.feed(rest)
            return (head, body, chunks.trailers) if chunks.done else No.WAITS
    except RequestRefused:
        return No.REFUSED
    return (head, rest[: head.length], b"") if len(rest) >= head.length else No.WAITS


def ours(data: bytes) -> Outcome:
    found = read(data)
    if isinstance(found, No):
        return found
    head, body, _ = found
    # As it was written: to take the absolute form apart is our own affair.
    target = data.split(b" ", 2)[1]
    return Taken(head.method, target, head.minor, comparable(head.fields.items(), target), body)


def passed_on(data: bytes) -> tuple[bytes, bytes]:
    """What an endpoint is sent, and the target in it."""
    found = read(data)
    assert not isinstance(found, No)
    head, body, trailers = found
    if head.length == CHUNKED:
        body = (chunk(body) if body else b"") + LAST_CHUNK + trailers + b"\r\n"
    lines = request_block(head.about, ClientInfo("192.0.2.1", "http", 80))
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, head.target, lines, body), head.target


def comparable(items: Iterable[tuple[bytes, bytes]], target: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Names and the coding in lower case, as h11 gives them. Without Host where the target overrules it."""
    found = [(name.lower(), value.strip(b" \t")) for name, value in items]
    return tuple(
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in found
        if name != b"host" or target.startswith(b"/")
    )


def of_h11(data: bytes) -> Outcome:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    request: h11.Request | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                fields = comparable(request.headers, request.target)
                return Taken(request.method, request.target, int(request.http_version[-1:]), fields, body)
            else:
                return No.WAITS
    except h11.RemoteProtocolError:
        return No.REFUSED


class _Heard:
    """What llhttp tells as it reads."""

    def __init__(self) -> None:
        self.target = self.body = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.taken: Taken | None = None
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        if self.taken is None:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.taken is None:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.taken is None:
            self.count = len(self.fields)  # what comes later are trailers

    def on_body(self, body: bytes) -> None:
        if self.taken is None:
            self.body += body

    def on_message_complete(self) -> None:
        if self.taken is None:
            parser = self.parser
            minor = int(parser.get_http_version()[-1])
            fields = comparable(self.fields[: self.count], self.target)
            self.taken = Taken(parser.get_method(), self.target, minor, fields, self.body)


def of_llhttp(data: bytes) -> Outcome:
    heard = _Heard()
    try:
        heard.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        # What follows a whole request is another matter.
        return heard.taken or No.REFUSED
    return heard.taken or No.WAITS


# --- differences --------------------------------------------------------------------------------------------

Applies = Callable[[Taken, bytes], bool]

READERS: dict[str, Callable[[bytes], Outcome]] = {"h11": of_h11, "llhttp": of_llhttp}
_EXTENSION = re.compile(rb"(?:^|\n)[0-9A-Fa-f]+[ \t]*;")
_FRAMING_TRAILER = re.compile(rb"\n0+(?:;.*)?\r\n(?:.*\r\n)*?(?:content-length|transfer-encoding):", re.I)


def _extension(taken: Taken, data: bytes) -> bool:
    return _chunked(taken) and _EXTENSION.search(data) is not None


def _framing_trailer(taken: Taken, data: bytes) -> bool:
    return _chunked(taken) and _FRAMING_TRAILER.search(data) is not None


def _chunked(taken: Taken) -> bool:
    return (b"transfer-encoding", b"chunked") in taken.fields


def _empty_line_before(_: Taken, data: bytes) -> bool:
    return data.startswith(b"\r\n")


def _unknown_method(taken: Taken, _: bytes) -> bool:
    return of_llhttp(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % taken.method) is No.REFUSED


def _upgrade_with_body(taken: Taken, _: bytes) -> bool:
    return bool(taken.body) and any(name == b"upgrade" for name, _ in taken.fields)


EXTENSION = "a chunk's extension that is malformed or has spaces before it: we read over it and drop it"
TRAILER = "a trailer that would frame a message: we drop it, as RFC 9110 section 6.5.1 has it"
REFUSED: dict[str, dict[str, Applies]] = {
    "h11": {
        "an empty line before: RFC 9112 section 2.2 wants it forgiven": _empty_line_before,
        TRAILER: _framing_trailer,
        EXTENSION: _extension,
    },
    "llhttp": {
        "a method that it does not know: RFC 9110 section 9.1 lets anybody define one": _unknown_method,
        TRAILER: _framing_trailer,
        EXTENSION: _extension,
    },
}
OTHERWISE: dict[str, dict[str, Applies]] = {
    "h11": {},
    "llhttp": {
        "httptools reads no body after an Upgrade: we pass on no Upgrade with a body": _upgrade_with_body,
    },
}


def explained(reader: str, taken: Taken, theirs: Outcome, data: bytes) -> str | None:
    table = (REFUSED if theirs is No.REFUSED else OTHERWISE)[reader]
    return next((why for why, applies in table.items() if applies(taken, data)), None)


# --- inputs -------------------------------------------------------------------------------------------------

METHODS = (b"GET", b"POST", b"PUT", b"OPTIONS", b"PURGE", b"get", b"X-OWN")
TARGETS = (
    b"/",
    b"/a/b?c=d&e",
    b"/%7e/..//x",
    b'/"<>\\^`{|}',
    b"http://b.example/x?y",
    b"http://b.example",
    b"*",
)
LINES = (
    b"Accept: */*",
    b"X-Empty:",
    b"X-Tab:\tb\t",
    b"X-Latin: caf\xe9",
    b"X-Colon: a: b:c",
    b"!#$%&'*+-.^_`|~: odd",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Expect: 100-continue",
    b"Cookie: a=b; c=d",
    b"TE: trailers",
)
LENGTHS = (
    b"",
    b"",
    b"Content-Length: 5",
    b"Content-Length: 005",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
)
BODIES = {
    b"content-length": (b"hello", b"hello" + b"GET / HTTP/1.1\r\n"),
    b"transfer-encoding": (
        b"5\r\nhello\r\n0\r\n\r\n",
        b"05\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
        b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nSum: 1\r\n\r\n",
        b"1\r\n\r\r\n0\r\n\r\n",
    ),
    b"": (b"", b"", b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"),
}
TRICKS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\t",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"\x7f",
    b"\xff",
    b"\x0b",
    b"#",
    b"@",
    b"0",
    b"+",
    b"-",
    b"_",
    b"0x",
    b" :",
    b" ;x",
    b"\r\nHost: b",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 6",
    b"\r\nContent-Length: +5",
    b"\r\nContent-Length: 5, 5",
    b"\r\nContent-Length : 5",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding:\x0bchunked",
    b"\r\nTransfer-Encoding: identity",
    b"\r\nTransfer-Encoding: gzip, chunked",
    b"\r\nTransfer-Encoding: chunked, identity",
    b"\r\nTransfer_Encoding: chunked",
    b"\r\nContent-Length: 99999999999999999999",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"\r\nConnection: content-length",
    b"ffffffffffffffff",
    b"0\r\n\r\n",
    b"http://",
    b"%00",
)


def generated(rng: Random) -> bytes:
    """A request that is right."""
    method, target = rng.choice(METHODS), rng.choice(TARGETS)
    if target == b"*":
        method = b"OPTIONS"
    length = rng.choice(LENGTHS)
    version = b"HTTP/1.0" if rng.random() < 0.1 and not length.startswith(b"Tr") else b"HTTP/1.1"
    lines = [b"Host: a.example", *rng.sample(LINES, rng.randint(0, 4))]
    if length:
        lines.insert(rng.randrange(len(lines) + 1), length)
    body = rng.choice(BODIES[length.partition(b":")[0].lower()])
    before = b"\r\n" if rng.random() < 0.03 else b""
    return b"%b%b %b %b\r\n%b\r\n\r\n%b" % (before, method, target, version, b"\r\n".join(lines), body)


def mutated(rng: Random, data: bytes) -> bytes:
    """One to three changes, mostly where they hurt: at the ends of lines and around colons."""
    for _ in range(rng.randint(1, 3)):
        places = [at for at, byte in enumerate(data) if byte in b"\r\n:; "] or [0]
        at = rng.choice(places) + rng.randint(0, 1) if rng.random() < 0.6 else rng.randrange(len(data) + 1)
        what = rng.random()
        if what < 0.5:
            data = data[:at] + rng.choice(TRICKS) + data[at:]
        elif what < 0.7:
            data = data[:at] + data[at + rng.choice((1, 1, 2)) :]
        elif what < 0.85:
            data = data[:at] + rng.randbytes(1) + data[at + 1 :]
        else:
            end = rng.randrange(at, len(data) + 1)
            data = data[:end] + data[at:]
    return data


def inputs() -> Iterator[bytes]:
    rng = Random(SEED)
    for number in range(INPUTS):
        data = generated(rng)
        yield data if number % 5 == 0 else mutated(rng, data)


# --- tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_what_we_take_they_take_and_understand_the_same(reader: str) -> None:
    seen = Counter[str]()
    for data in inputs():
        taken = ours(data)
        if isinstance(taken, Taken):
            theirs = READERS[reader](data)
            why = "agreed" if theirs == taken else explained(reader, taken, theirs, data)
            assert why is not None, f"{data!r}: ours {taken}, {reader} {theirs}"
            seen[why] += 1
    assert seen["agreed"] > AGREED_MIN
    assert seen.keys() == {"agreed", *REFUSED[reader], *OTHERWISE[reader]}, "an explanation of nothing"


@pytest.mark.parametrize("reader", READERS)
def test_what_we_pass_on_is_read_as_we_read_it(reader: str) -> None:
    """Without exceptions, but for methods of people's own."""
    agreed = 0
    for data in inputs():
        taken = ours(data)
        if isinstance(taken, No) or (reader == "llhttp" and _unknown_method(taken, data)):
            continue
        passed, target = passed_on(data)
        theirs = READERS[reader](passed)
        assert isinstance(theirs, Taken), f"{data!r}: passed on as {passed!r}"
        assert (theirs.method, theirs.target, theirs.body) == (taken.method, target, taken.body), data
        agreed += 1
    assert agreed > AGREED_MIN


def test_requests_that_are_right_are_taken() -> None:
    rng = Random(SEED)
    for data in (generated(rng) for _ in range(1000)):
        assert isinstance(ours(data), Taken), data


def test_a_body_after_an_upgrade_becomes_no_second_request() -> None:
    """httptools takes it for one, when it comes in a read of its own."""
    second = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
    data = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: %d\r\n\r\n%b"
    data %= (len(second), second)

    def targets(sent: bytes) -> list[bytes]:
        heard = _Heard()
        seen: list[bytes] = []
        heard.on_url = seen.append  # type: ignore[method-assign]
        parser = httptools.HttpRequestParser(heard)
        with suppress(httptools.HttpParserUpgrade):
            parser.feed_data(sent.removesuffix(second))
        parser.feed_data(second)
        return seen

    assert targets(data) == [b"/", b"/second"]
    assert targets(passed_on(data)[0]) == [b"/"]
