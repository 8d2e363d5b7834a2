"""Heads: what is understood, what is refused with which status, and that nothing is guessed."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.codec.h1_head import (
    CHUNKED,
    UNTIL_CLOSE,
    Fields,
    RequestHead,
    RequestReader,
    ResponseReader,
    hopeless,
    read_response,
)
from mesh.http.faults import HttpFault, RequestRefused


def request(*lines: str, first: str = "GET / HTTP/1.1") -> RequestHead:
    head = "".join(f"{line}\r\n" for line in (first, *lines)) + "\r\n"
    return RequestReader().read(head.encode("latin-1"))


def refused(*lines: str, first: str = "GET / HTTP/1.1") -> HttpFault:
    with pytest.raises(RequestRefused) as caught:
        request(*lines, first=first)
    return caught.value.fault


def test_a_request_has_a_method_a_target_and_a_host() -> None:
    head = request("Host: Shop.Example:8080", "Accept: */*", first="PUT /a?b=c HTTP/1.1")
    assert (head.method, head.target, head.minor, head.host) == (b"PUT", b"/a?b=c", 1, "shop.example")
    assert head.about.authority == b"Shop.Example:8080"
    assert head.length == 0
    assert head.persistent


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a", "a"),
        ("a.", "a"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("a:", "a"),
        ("a:65535", "a"),
        ("", ""),
    ],
)
def test_the_host_is_read_without_port_and_final_dot(host: str, name: str) -> None:
    assert request(f"Host: {host}").host == name


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], 0),
        (["Content-Length: 0"], 0),
        (["content-length:12"], 12),
        (["Transfer-Encoding: chunked"], CHUNKED),
        (["TRANSFER-ENCODING:\tChunked "], CHUNKED),
    ],
)
def test_the_length_of_a_request_body_is_read_from_its_fields(lines: list[str], length: int) -> None:
    assert request("Host: a", *lines).length == length


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 1", "Content-Length: 1"],
        ["Content-Length: 1, 1"],
        ["Content-Length: +1"],
        ["Content-Length: -1"],
        ["Content-Length: 0x10"],
        ["Content-Length: 1 2"],
        ["Content-Length:"],
        ["Content-Length: 1234567890123456789"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: \x0bchunked"],
        ["Transfer-Encoding:"],
        ["Transfer-Encoding : chunked"],
        ["Content-Length : 5"],
        [" Content-Length: 5"],
        ["A: b", " folded"],
        ["A: b\rContent-Length: 5"],
        ["A: b\nContent-Length: 5"],
        ["A: b\x00"],
        ["A: b\x7f"],
        ["A"],
        [": b"],
        ["A\xe9: b"],
        ["A(b): c"],
        ["Host: b"],
        ["Host: a"],
    ],
)
def test_framing_that_can_be_read_in_two_ways_is_refused(lines: list[str]) -> None:
    assert refused("Host: a", *lines) is HttpFault.BAD_HEAD


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a/b",
        "a@b",
        "a,b c",
        "a:b",
        "a:65536",
        "a:70000",
        "a:000001",
        "[::1",
        "a\\b",
        "a#b",
        "a?b",
        "é",
    ],
)
def test_a_malformed_host_is_refused(host: str) -> None:
    assert refused(f"Host: {host}") is HttpFault.BAD_HEAD


def test_a_request_without_a_host_is_refused_except_in_http_1_0() -> None:
    assert refused() is HttpFault.BAD_HEAD
    assert request(first="GET / HTTP/1.0").host == ""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("GET /", HttpFault.BAD_HEAD),
        ("GET  / HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET / HTTP/1.1 ", HttpFault.BAD_HEAD),
        (" GET / HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET /a b HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET /\x01 HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET /é HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET /#a HTTP/1.1", HttpFault.BAD_HEAD),
        ("G(T / HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET\t/ HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET a HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET * HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET http:// HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET http://u@a/ HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET ftp://a/ HTTP/1.1", HttpFault.BAD_HEAD),
        ("GET / http/1.1", HttpFault.BAD_HEAD),
        ("GET / HTTP/1.2", HttpFault.BAD_HEAD),
        ("GET / HTTP/2.0", HttpFault.VERSION),
        ("PRI * HTTP/2.0", HttpFault.VERSION),
        ("CONNECT a:443 HTTP/1.1", HttpFault.METHOD),
        ("GET /" + "a" * 20_000 + " HTTP/1.1", HttpFault.TARGET_TOO_LONG),
    ],
)
def test_a_malformed_request_line_is_refused(line: str, fault: HttpFault) -> None:
    assert refused("Host: a", first=line) is fault


def test_the_authority_of_an_absolute_target_replaces_host() -> None:
    head = request("Host: other", "X: y", first="GET http://Shop.example:81/p?q HTTP/1.1")
    assert (head.target, head.host, head.about.authority) == (b"/p?q", "shop.example", b"Shop.example:81")
    assert head.fields.all(b"host") == [b"Shop.example:81"]
    assert head.fields.get(b"x") == b"y"
    assert request("Host: a", first="GET http://b HTTP/1.1").target == b"/"
    assert request("Host: a", first="GET http://b?q HTTP/1.1").target == b"/?q"


def test_options_may_have_an_asterisk_for_a_target() -> None:
    assert request("Host: a", first="OPTIONS * HTTP/1.1").target == b"*"


@pytest.mark.parametrize(
    ("version", "connection", "persistent"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "Keep-Alive, CLOSE", False),
        ("1.0", "", False),
        ("1.0", "keep-alive", True),
        ("1.1", "upgrade", True),
    ],
)
def test_a_connection_persists_as_version_and_connection_say(
    version: str, connection: str, persistent: bool
) -> None:
    lines = [f"Connection: {connection}"] if connection else []
    assert request("Host: a", *lines, first=f"GET / HTTP/{version}").persistent is persistent


def test_an_upgrade_is_ignored_unless_connection_names_it() -> None:
    assert request("Host: a", "Upgrade: websocket").about.upgrade == b""
    assert request("Host: a", "Connection: Upgrade", "Upgrade: websocket").about.upgrade == b"websocket"


@pytest.mark.parametrize("protocol", ["h2c", "H2C", "websocket, h2c"])
def test_an_upgrade_to_http_2_is_ignored(protocol: str) -> None:
    head = request(
        "Host: a", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: x"
    )
    assert head.about.upgrade == b""


def test_an_unknown_expectation_is_refused() -> None:
    assert request("Host: a", "Expect: 100-Continue", "Content-Length: 1").about.expects
    assert refused("Host: a", "Expect: 200-ok") is HttpFault.EXPECTATION


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    assert refused("Host: a", "Transfer-Encoding: chunked", first="POST / HTTP/1.0") is HttpFault.BAD_HEAD


def test_a_transfer_coding_besides_chunked_is_refused() -> None:
    assert refused("Host: a", "Transfer-Encoding: gzip, chunked") is HttpFault.UNKNOWN_CODING


def test_too_many_fields_are_refused() -> None:
    assert refused("Host: a", *["A: b"] * 200) is HttpFault.HEAD_TOO_LARGE


def test_a_connections_reader_notices_every_change_of_fields() -> None:
    reader = RequestReader()
    first = reader.read(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    again = reader.read(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    other = reader.read(b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n")
    assert again.about is first.about
    assert (again.target, other.host) == (b"/2", "b")
    # What an absolute target says must not stay behind for the next request.
    assert reader.read(b"GET http://c/ HTTP/1.1\r\nHost: b\r\n\r\n").host == "c"
    assert reader.read(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n").host == "b"
    with pytest.raises(RequestRefused):
        reader.read(b"GET / HTTP/1.1\r\nHost: b\r\nbad\r\n\r\n")
    assert reader.read(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n").host == "b"


class TestResponses:
    def test_a_response_has_a_status_a_reason_and_fields(self) -> None:
        head = read_response(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n")
        assert (head.status, head.reason, head.length, head.close) == (404, b"Not Found", 3, False)

    @pytest.mark.parametrize("line", ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200 OK"])
    def test_the_reason_may_be_missing(self, line: str) -> None:
        assert read_response(f"{line}\r\n\r\n".encode()).status == 200

    @pytest.mark.parametrize(
        ("method", "status", "fields", "length"),
        [
            (b"GET", 200, "", UNTIL_CLOSE),
            (b"GET", 200, "Content-Length: 0\r\n", 0),
            (b"GET", 200, "Transfer-Encoding: chunked\r\n", CHUNKED),
            (b"HEAD", 200, "Content-Length: 5\r\n", 0),
            (b"HEAD", 200, "", 0),
            (b"GET", 204, "", 0),
            (b"GET", 304, "Content-Length: 5\r\n", 0),
            (b"GET", 101, "", 0),
        ],
    )
    def test_the_length_of_a_response_body_depends_on_method_and_status(
        self, method: bytes, status: int, fields: str, length: int
    ) -> None:
        head = read_response(f"HTTP/1.1 {status} x\r\n{fields}\r\n".encode())
        assert head.body_length(method) == length

    @pytest.mark.parametrize(
        "head",
        [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 O\x00K\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    )
    def test_a_malformed_response_is_refused(self, head: str) -> None:
        with pytest.raises(RequestRefused) as caught:
            read_response(head.encode("latin-1"))
        assert caught.value.fault is HttpFault.BAD_RESPONSE

    @pytest.mark.parametrize(
        ("version", "connection", "closes"),
        [("1.1", "", False), ("1.1", "close", True), ("1.0", "", True), ("1.0", "Keep-Alive", False)],
    )
    def test_a_response_closes_as_version_and_connection_say(
        self, version: str, connection: str, closes: bool
    ) -> None:
        line = f"Connection: {connection}\r\n" if connection else ""
        assert read_response(f"HTTP/{version} 200 OK\r\n{line}\r\n".encode()).close is closes

    def test_an_endpoints_reader_notices_every_change(self) -> None:
        reader = ResponseReader()
        one = reader.read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
        assert reader.read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n") is one
        assert reader.read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").length == 2


_names = st.sampled_from(["A", "Content-Type", "X-Y", "cookie", "a"])
_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12).map(str.strip)
_lines = st.lists(st.tuples(_names, _values), max_size=8)


@given(_lines)
def test_searching_a_block_finds_what_parsing_its_lines_finds(lines: list[tuple[str, str]]) -> None:
    fields = Fields("".join(f"{name}: {value}\r\n" for name, value in lines).encode())
    assert fields.items() == [(name.encode(), value.encode()) for name, value in lines]
    for name in ("a", "content-type", "x-y", "cookie", "type", "absent"):
        expected = [value.encode() for found, value in lines if found.lower() == name]
        wanted = name.encode()
        assert fields.all(wanted) == expected
        assert fields.get(wanted) == (expected[0] if expected else None)
        assert fields.has(wanted) is bool(expected)
        left = Fields(fields.without(wanted)).items()
        assert left == [(n.encode(), v.encode()) for n, v in lines if n.lower() != name]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_refused(noise: bytes) -> None:
    for read in (RequestReader().read, read_response):
        for head in (noise + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + noise + b"\r\n\r\n"):
            end = head.find(b"\r\n\r\n") + 4
            with suppress(RequestRefused):
                read(head[:end])


@pytest.mark.parametrize(
    ("beginning", "never"),
    [(b"GET / HT", False), (b"GET / HTTP/1.1\r\nA: b", False), (b"GET / HTTP/1.1\n", True), (b"\n", True)],
)
def test_bytes_that_can_never_become_a_head_are_known_early(beginning: bytes, never: bool) -> None:
    assert hopeless(beginning) is never
    # However it is cut: one of the looks sees it, and none sees what is not there.
    for cut in range(len(beginning)):
        assert (hopeless(beginning[:cut]) or hopeless(beginning, cut)) is never
