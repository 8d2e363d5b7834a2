"""Traefik's rule language: what rules match, and why others cannot be read."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.codec.path_check import normal_path
from mesh.http.config.rule_parser import RuleError, read_rule
from tests.support.http_requests import FakeRequest


@pytest.mark.parametrize(
    ("rule", "request_", "matches"),
    [
        ("Host(`a.example`)", FakeRequest(), True),
        ("Host(`A.Example`)", FakeRequest(), True),
        ('Host("a.example")', FakeRequest(), True),
        ("Host(`b.example`)", FakeRequest(), False),
        ("Host(`a.example`, `b.example`)", FakeRequest(host="b.example"), True),
        ("host(`a.example`)", FakeRequest(), True),
        ("HostRegexp(`^[a-z]+\\.example$`)", FakeRequest(), True),
        ("HostRegexp(`^[b-z]+\\.example$`)", FakeRequest(), False),
        ("Host(`[::1]`)", FakeRequest(host="[::1]"), True),
        ("Path(`/a`)", FakeRequest(path="/a"), True),
        ("Path(`/café au lait`)", FakeRequest(path=normal_path("/caf%c3%a9%20au%20lait")), True),
        ("PathPrefix(`/%7ea%2fb`)", FakeRequest(path=normal_path("/~a%2Fb/c")), True),
        ("PathPrefix(`/.`)", FakeRequest(path="/.git/config"), True),
        ("PathPrefix(`/.`)", FakeRequest(path="/a"), False),
        ("Path(`/a`)", FakeRequest(path="/a/"), False),
        ("PathPrefix(`/a`)", FakeRequest(path="/ab"), True),
        ("PathPrefix(`/a/`)", FakeRequest(path="/ab"), False),
        ("PathRegexp(`\\.(png|jpg)$`)", FakeRequest(path="/x.jpg"), True),
        ("Method(`post`)", FakeRequest(method="POST"), True),
        ("Method(`POST`)", FakeRequest(), False),
        ("Header(`X-Key`, `v`)", FakeRequest(fields={"x-key": ["u", "v"]}), True),
        ("Header(`X-Key`, `v`)", FakeRequest(), False),
        ("HeaderRegexp(`X-Key`, `^v+$`)", FakeRequest(fields={"x-key": ["vvv"]}), True),
        ("Query(`a`, `b c`)", FakeRequest(query="x=y&a=b+c"), True),
        ("Query(`a`)", FakeRequest(query="a"), True),
        ("Query(`a`)", FakeRequest(query="b=a"), False),
        ("QueryRegexp(`a`, `^[0-9]+$`)", FakeRequest(query="a=12"), True),
        ("ClientIP(`10.0.0.0/8`)", FakeRequest(), True),
        ("ClientIP(`10.0.0.2`)", FakeRequest(), False),
        ("ClientIP(`::1`)", FakeRequest(), False),
        ("!Host(`a.example`)", FakeRequest(), False),
        ("!!Host(`a.example`)", FakeRequest(), True),
        ("Host(`b`) || Host(`a.example`) && Path(`/x`)", FakeRequest(path="/x"), True),
        ("Host(`b`) || Host(`a.example`) && Path(`/x`)", FakeRequest(host="b"), True),
        ("(Host(`b`) || Host(`a.example`)) && Path(`/x`)", FakeRequest(host="b"), False),
        (" ( Host( `a.example` ) ) ", FakeRequest(), True),
    ],
)
def test_a_rule_matches_as_it_says(rule: str, request_: FakeRequest, matches: bool) -> None:
    assert read_rule(rule).matches(request_) is matches


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "at 1: a matcher such as Host or PathPrefix is expected, not the end"),
        ("Host", "at 5: '(' is expected, not the end"),
        ("Host(", "at 6: a value in backticks or ')' is expected, not the end"),
        ("Host(a)", "at 6: a value in backticks or ')' is expected, not a"),
        ("Host(`a`", "at 9: a value in backticks or ')' is expected, not the end"),
        ("Host(`a`) Path(`/`)", "at 11: '&&', '||' or the end is expected, not Path"),
        ("Host(`a`) &&", "at 13: a matcher such as Host or PathPrefix is expected, not the end"),
        ("Host(`a`) & Path(`/`)", "at 11: '& Path(`/`)' is no part of a rule"),
        ("Hots(`a`)", "Hots at 1: no such matcher"),
        ("Host()", "Host at 1: takes 1 values, not 0"),
        ("Header(`a`)", "Header at 1: takes 2 values, not 1"),
        ("Headers(`a`, `b`)", "is Traefik v2's; v3 calls it Header"),
        ("HostRegexp(`{sub:[a-z]+}.example`)", "{name:…} is Traefik v2's"),
        ("Path(`/{id}`)", "is Traefik v2's; use PathRegexp"),
        ("Path(`a`)", "does not begin with /"),
        ("Path(`/a/../b`)", "is in no request"),
        ("PathPrefix(`//a`)", "is in no request"),
        ("Host(`a.example:80`)", "is no host name"),
        ("Host(``)", "is no host name"),
        ("Host(`münchen.example`)", "has letters that requests write as xn--"),
        ("HostRegexp(`(`)", "is no regular expression"),
        ("PathRegexp(`(?=a)`)", "is no regular expression"),
        ("ClientIP(`10.0.0.300`)", "does not appear to be"),
        ("!" * 60 + "Host(`a`)", "nested more than 50 deep"),
        ("Host(`" + "a" * 5000 + "`)", "longer than 4096 characters"),
    ],
)
def test_a_rule_that_cannot_be_read_says_why(rule: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        read_rule(rule)
    assert message in str(caught.value)


@given(st.text(alphabet='Host(`a)Path/&|! "é\\', max_size=40))
def test_any_text_is_a_rule_or_a_rule_error(text: str) -> None:
    with suppress(RuleError):
        read_rule(text)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/%61", "/a"),
        ("/%2f%2F", "/%2F%2F"),
        ("/a%2e%2e/b", "/a../b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/../../a", "/a"),
        ("//a", "/a"),
        ("/a//b//", "/a/b/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/.", "/a/"),
        ("/%zz", "/%zz"),
    ],
)
def test_paths_have_one_spelling(path: str, normal: str) -> None:
    assert normal_path(path) == normal
    assert normal_path(normal) == normal
