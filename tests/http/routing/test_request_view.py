"""A request's head as rules see it: what counts of it, and what only trusted proxies may say."""

import pytest

from mesh.http.codec.h1_head import Fields, RequestFields, RequestHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.faults import RequestRefused
from mesh.http.routing.request_view import RequestView, SyntheticRequest

FORWARDED = "X-Forwarded-For: 192.0.2.1, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n"


def view(target: str = "/", fields: str = "", trusted: bool = False) -> RequestView:
    block = Fields(f"Host: a.example\r\n{fields}".encode())
    head = RequestHead(b"GET", target.encode(), 1, RequestFields(block), "a.example")
    return RequestView(head, ClientInfo("10.0.0.1", "http", 80, lambda _address: trusted))


def test_the_target_is_split_into_path_and_query() -> None:
    request = view("/a/b?c=d?e")
    assert (request.path, request.query, request.sent_path) == ("/a/b", "c=d?e", "/a/b")
    assert (request.method, request.host, request.client) == ("GET", "a.example", "10.0.0.1")
    assert request.readings == ()


def test_an_escape_that_separates_nothing_is_matched_plainly() -> None:
    assert view("/%7Ea%3Ab").path == "/~a:b"


def test_a_path_that_servers_read_differently_is_refused() -> None:
    with pytest.raises(RequestRefused):
        view("/a/%2e%2e%2fb\\..")


@pytest.mark.parametrize(
    ("trusted", "scheme", "forwarded_for"),
    [(True, "https", ("192.0.2.1", "10.0.0.9")), (False, "http", ())],
)
def test_only_a_trusted_proxy_says_whose_request_it_is(
    trusted: bool, scheme: str, forwarded_for: tuple[str, ...]
) -> None:
    request = view("/", FORWARDED, trusted)
    assert (request.scheme, request.forwarded_for) == (scheme, forwarded_for)


def test_a_scheme_that_is_none_does_not_count() -> None:
    assert view("/", "X-Forwarded-Proto: gopher\r\n", trusted=True).scheme == "http"
    assert view("/", "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: WSS\r\n", trusted=True).scheme == "https"


def test_all_lines_of_a_field_are_seen() -> None:
    assert view("/", "X-Key: one\r\nx-key: two\r\n").header("x-key") == ["one", "two"]


def test_another_reading_is_the_same_request_with_another_path() -> None:
    request = view("/a?b=c")
    other = request.read_as("/%41")
    assert (other.path, other.query, request.path) == ("/A", "b=c", "/a")


def test_a_synthetic_request_has_no_field_but_its_host() -> None:
    request = SyntheticRequest("a.example", "/")
    assert (request.header("host"), request.header("cookie")) == (["a.example"], [])
