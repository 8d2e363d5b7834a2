"""`redirectscheme` and `redirectregex`: where a request is redirected, with which status, and when not."""

import pytest

from mesh.http.config.model import Middleware
from mesh.http.config.regex import Expression
from mesh.http.middleware.kinds.redirect_regex import RedirectRegex
from mesh.http.middleware.kinds.redirect_scheme import RedirectScheme
from tests.support.middleware_runs import plan_of


@pytest.mark.parametrize(
    ("middleware", "request_", "expected"),
    [
        (RedirectScheme("https"), {}, (302, "https://a.example/a/b")),
        (RedirectScheme("https", True), {"query": "x=1"}, (301, "https://a.example/a/b?x=1")),
        (RedirectScheme("https", True), {"method": "POST"}, (308, "https://a.example/a/b")),
        (RedirectScheme("https"), {"method": "POST"}, (307, "https://a.example/a/b")),
        (RedirectScheme("https", port="8443"), {}, (302, "https://a.example:8443/a/b")),
        (RedirectScheme("https", port="443"), {}, (302, "https://a.example/a/b")),
        (RedirectScheme("https"), {"authority": "a.example:8080"}, (302, "https://a.example/a/b")),
        (
            RedirectRegex(Expression("^http://a.example/(.*)"), "https://b.example/${1}", True),
            {},
            (301, "https://b.example/a/b"),
        ),
    ],
)
def test_a_request_is_redirected(
    middleware: Middleware, request_: dict[str, str], expected: tuple[int, str]
) -> None:
    answer = plan_of(middleware, **request_).answer
    assert answer is not None
    assert (answer.status, dict(answer.fields)[b"Location"].decode()) == expected


@pytest.mark.parametrize(
    ("middleware", "request_"),
    [
        (RedirectScheme("https"), {"scheme": "https"}),
        (RedirectScheme("https", port="8443"), {"scheme": "https", "authority": "a.example:8443"}),
        (RedirectRegex(Expression("^https://"), "http://"), {}),  # it does not match
        (RedirectRegex(Expression("^http://"), "http://"), {}),  # it changes nothing
    ],
)
def test_a_request_that_is_where_it_should_be_is_not_redirected(
    middleware: Middleware, request_: dict[str, str]
) -> None:
    assert plan_of(middleware, **request_).answer is None
