"""Matchers: what of a request each looks at, and what it says of the hosts and paths that can match."""

from ipaddress import ip_network

import pytest

from mesh.http.config.matchers import (
    Always,
    And,
    ClientIP,
    HeaderMatcher,
    HeaderRegexp,
    HostMatcher,
    HostRegexp,
    Matcher,
    Method,
    Not,
    Or,
    Path,
    PathKey,
    PathPrefix,
    PathRegexp,
    QueryMatcher,
    QueryRegexp,
    routing_path,
)
from mesh.http.config.regex import Expression
from tests.support.http_requests import FakeRequest

REQUEST = FakeRequest(path="/api/x", method="POST", query="a=1&b=c%20d&e", fields={"x-key": ["one", "two"]})


@pytest.mark.parametrize(
    ("matcher", "other"),
    [
        (HostMatcher("a.example"), HostMatcher("b.example")),
        (HostRegexp(Expression("^a[.]")), HostRegexp(Expression("^b[.]"))),
        (Path("/api/x"), Path("/api")),
        (PathPrefix("/ap"), PathPrefix("/x")),  # a beginning of the text, not of the segments
        (PathRegexp(Expression("x$")), PathRegexp(Expression("^x"))),
        (Method("POST"), Method("GET")),
        (HeaderMatcher("x-key", "two"), HeaderMatcher("x-key", "one, two")),
        (HeaderRegexp("x-key", Expression("^t")), HeaderRegexp("x-other", Expression("^t"))),
        (QueryMatcher("b", "c d"), QueryMatcher("b", "c%20d")),
        (QueryMatcher("e", None), QueryMatcher("f", None)),
        (QueryRegexp("a", Expression("^[0-9]$")), QueryRegexp("b", Expression("^[0-9]$"))),
        (ClientIP(ip_network("10.0.0.0/24")), ClientIP(ip_network("::/0"))),
        (Always(), Not(Always())),
    ],
)
def test_each_matcher_looks_at_its_part_of_the_request(matcher: Matcher, other: Matcher) -> None:
    assert matcher.matches(REQUEST)
    assert not other.matches(REQUEST)
    assert Or(other, matcher).matches(REQUEST)
    assert not And(other, matcher).matches(REQUEST)


A, B = HostMatcher("a"), HostMatcher("b")
API, DEEP = PathPrefix("/api"), PathPrefix("/api/deep")


@pytest.mark.parametrize(
    ("matcher", "hosts"),
    [
        (A, {"a"}),
        (Or(A, B), {"a", "b"}),
        (And(A, B), set()),
        (And(A, API), {"a"}),
        (Or(A, API), None),
        (Not(A), None),
        (Always(), None),
    ],
)
def test_the_hosts_that_a_matcher_can_match(matcher: Matcher, hosts: set[str] | None) -> None:
    assert matcher.hosts == hosts


@pytest.mark.parametrize(
    ("matcher", "paths"),
    [
        (Path("/x"), {PathKey("/x", True)}),
        (API, {PathKey("/api", False)}),
        (Or(API, Path("/x")), {PathKey("/api", False), PathKey("/x", True)}),
        (And(API, DEEP), {PathKey("/api/deep", False)}),  # the longer one finds less in vain
        (And(Or(API, Path("/x")), DEEP), {PathKey("/api/deep", False)}),
        (Or(A, API), None),
        (Not(API), None),
    ],
)
def test_the_paths_that_a_matcher_can_match(matcher: Matcher, paths: set[PathKey] | None) -> None:
    assert matcher.paths == paths


@pytest.mark.parametrize(
    ("path", "expected"), [("/a%3Ab", "/a:b"), ("/a%2fb", "/a%2Fb"), ("/%41", "/A"), ("/%c3", "/%C3")]
)
def test_an_escape_that_separates_nothing_is_written_plainly(path: str, expected: str) -> None:
    assert routing_path(path) == expected
