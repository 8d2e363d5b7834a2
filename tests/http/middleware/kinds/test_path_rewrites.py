"""The kinds that change the path: the path that is sent on, and what the application gets to know."""

import pytest

from mesh.http.config.model import Middleware
from mesh.http.config.regex import Expression
from mesh.http.middleware.kinds.add_prefix import AddPrefix
from mesh.http.middleware.kinds.replace_path import ReplacePath
from mesh.http.middleware.kinds.replace_path_regex import ReplacePathRegex
from mesh.http.middleware.kinds.strip_prefix import StripPrefix
from mesh.http.middleware.kinds.strip_prefix_regex import StripPrefixRegex
from tests.support.middleware_runs import plan_of


@pytest.mark.parametrize(
    ("middleware", "path"),
    [
        (StripPrefix(("/x", "/a")), "/b"),
        (StripPrefix(("/a/b",)), "/"),
        (StripPrefix(("/x",)), "/a/b"),
        (StripPrefixRegex((Expression("^/x"), Expression("^/[a-z]"))), "/b"),
        (StripPrefixRegex((Expression("/b"),)), "/a/b"),  # not where the path begins
        (AddPrefix("/v1"), "/v1/a/b"),
        (ReplacePath("/z"), "/z"),
        (ReplacePathRegex(Expression("^/a/(.*)"), "/c/$1"), "/c/b"),
        (ReplacePathRegex(Expression("^/x"), "/c"), "/a/b"),
        (ReplacePathRegex(Expression("^/a"), "/c d"), "/a/b"),  # no path has a space
    ],
)
def test_a_request_is_sent_on_with_another_path(middleware: Middleware, path: str) -> None:
    assert plan_of(middleware).path == path


def test_the_application_gets_the_prefix_that_was_stripped() -> None:
    assert plan_of(StripPrefix(("/a/",))).request_fields == [("X-Forwarded-Prefix", "/a")]


def test_the_application_gets_the_path_that_was_replaced() -> None:
    assert plan_of(ReplacePath("/z")).request_fields == [("X-Replaced-Path", "/a/b")]
    assert plan_of(ReplacePathRegex(Expression("^/x"), "/c")).request_fields == []
