"""Heads are converted between the lists of HTTP/2 and the bytes of HTTP/1."""

import pytest
from hpack import NeverIndexedHeaderTuple

from mesh.http.codec.h1_head import CHUNKED, RequestReader
from mesh.http.codec.h1_head import read_response as read_h1_response
from mesh.http.codec.h2_headers import (
    RequestLists,
    answer_list,
    read_response,
    read_trailers,
    request_list,
    response_list,
    trailer_list,
)
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.local_reply import LocalReply

List = list[tuple[bytes, bytes]]
PSEUDO: List = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/a?b"),
    (b":authority", b"a.example"),
]


class TestRequests:
    def test_a_list_becomes_a_head_of_http_1(self) -> None:
        head = RequestLists().read([*PSEUDO, (b"accept", b"*/*")], True)
        assert (head.method, head.target, head.minor, head.host) == (b"GET", b"/a?b", 1, "a.example")
        assert head.fields.raw == b"host: a.example\r\naccept: */*\r\n"
        assert head.length == 0

    def test_cookies_are_joined(self) -> None:
        head = RequestLists().read([*PSEUDO, (b"cookie", b"a=1"), (b"cookie", b"b=2")], True)
        assert head.fields.get(b"cookie") == b"a=1; b=2"

    def test_a_body_without_a_length_is_chunked(self) -> None:
        assert RequestLists().read(PSEUDO, False).length == CHUNKED
        assert RequestLists().read([*PSEUDO, (b"content-length", b"3")], False).length == 3

    def test_a_post_without_a_body_gets_a_length_of_0(self) -> None:
        head = RequestLists().read([(b":method", b"POST"), *PSEUDO[1:]], True)
        assert head.fields.get(b"content-length") == b"0"

    def test_host_may_stand_in_for_the_authority(self) -> None:
        assert RequestLists().read([*PSEUDO[:3], (b"host", b"b.example")], True).host == "b.example"

    def test_the_last_fields_are_kept_until_they_change(self) -> None:
        lists = RequestLists()
        first = lists.read([*PSEUDO, (b"accept", b"*/*")], True)
        assert lists.read([*PSEUDO, (b"accept", b"*/*")], True).about is first.about
        assert lists.read([*PSEUDO, (b"accept", b"text/*")], True).about is not first.about
        assert lists.read([*PSEUDO, (b"accept", b"text/*")], False).length == CHUNKED

    @pytest.mark.parametrize(
        ("fields", "fault"),
        [
            ([*PSEUDO, (b":path", b"/")], HttpFault.BAD_HEAD),
            ([*PSEUDO[:3], (b"accept", b"*/*"), PSEUDO[3]], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b":unknown", b"x")], HttpFault.BAD_HEAD),
            (PSEUDO[:3], HttpFault.BAD_HEAD),
            (PSEUDO[1:], HttpFault.BAD_HEAD),
            ([(b":method", b"CONNECT"), (b":authority", b"a:1")], HttpFault.METHOD),
            ([*PSEUDO[:2], (b":path", b"a"), PSEUDO[3]], HttpFault.BAD_HEAD),
            ([*PSEUDO[:2], (b":path", b"/" + b"a" * 20_000), PSEUDO[3]], HttpFault.TARGET_TOO_LONG),
            ([PSEUDO[0], (b":scheme", b"ftp"), *PSEUDO[2:]], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"Accept", b"*/*")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"x", b"a\r\nb: c")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"x:y", b"a")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"connection", b"close")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"transfer-encoding", b"chunked")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"te", b"gzip")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"host", b"b.example")], HttpFault.BAD_HEAD),
            ([*PSEUDO, (b"content-length", b"3")], HttpFault.BAD_HEAD),
        ],
    )
    def test_a_list_that_is_no_request_is_refused(self, fields: List, fault: HttpFault) -> None:
        with pytest.raises(RequestRefused) as refused:
            RequestLists().read(fields, True)
        assert refused.value.fault is fault

    def test_a_head_of_http_1_becomes_a_list_without_fields_of_the_connection(self) -> None:
        head = RequestReader().read(b"GET /a HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n")
        lines = b"Host: a\r\nX-A: 1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        assert request_list(head, b"/b", lines, b"http") == [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/b"),
            (b":authority", b"a"),
            (b"x-a", b"1"),
        ]

    def test_secret_fields_are_never_indexed(self) -> None:
        head = RequestReader().read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        listed = request_list(head, b"/", b"Host: a\r\nCookie: a=1\r\nX: 1\r\n", b"http")
        assert [isinstance(one, NeverIndexedHeaderTuple) for one in listed[-2:]] == [True, False]


class TestResponses:
    def test_a_list_becomes_a_head_of_http_1(self) -> None:
        head = read_response([(b":status", b"404"), (b"x-a", b"1")])
        assert (head.status, head.reason, head.fields.raw) == (404, b"Not Found", b"x-a: 1\r\n")
        assert head.length == CHUNKED

    @pytest.mark.parametrize(
        "fields",
        [
            [],
            [(b"x-a", b"1"), (b":status", b"200")],
            [(b":status", b"101")],
            [(b":status", b"999")],
            [(b":status", b"200"), (b"connection", b"close")],
            [(b":status", b"200"), (b"x", b"a\nb")],
        ],
    )
    def test_a_list_that_is_no_response_is_refused(self, fields: List) -> None:
        with pytest.raises(RequestRefused) as refused:
            read_response(fields)
        assert refused.value.fault is HttpFault.BAD_RESPONSE

    def test_fields_that_connection_names_stay_behind(self) -> None:
        data = b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n"
        assert response_list(read_h1_response(data)) == [(b":status", b"200"), (b"x-end", b"2")]

    def test_a_local_reply_has_a_length_where_there_can_be_a_body(self) -> None:
        assert answer_list(LocalReply(404, ((b"X-A", b"1"),), b"no")) == [
            (b":status", b"404"),
            (b"x-a", b"1"),
            (b"content-length", b"2"),
        ]
        assert answer_list(LocalReply(304)) == [(b":status", b"304")]


def test_trailers_are_read_and_written() -> None:
    assert read_trailers([(b"x-sum", b"1")], HttpFault.BAD_BODY) == b"x-sum: 1\r\n"
    assert trailer_list(b"X-Sum: 1\r\n") == [(b"x-sum", b"1")]
    with pytest.raises(RequestRefused) as refused:
        read_trailers([(b":status", b"200")], HttpFault.BAD_BODY)
    assert refused.value.fault is HttpFault.BAD_BODY
