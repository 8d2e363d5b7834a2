"""Expressions of labels: what they match, what they replace, and which are refused."""

import pytest

from mesh.http.config.regex import SUBJECT_MAX, TEXT_MAX, Expression


def test_an_expression_matches_anywhere_unless_it_says_where() -> None:
    assert Expression("b+").found("abbc")
    assert not Expression("^b").found("abbc")
    assert Expression("b+").first("abbc") == "bb"
    assert Expression("x").first("abbc") == ""


@pytest.mark.parametrize(
    ("expression", "replacement", "expected"),
    [
        ("b(.)", "<$1>", "a<c>d"),
        ("b(?P<next>.)", "${next}${next}", "accd"),
        ("(b)", "$1x", "acd"),  # the name is `1x`, as with Go
        ("(b)", "${1}x", "abxcd"),
        ("b", "$$", "a$cd"),
        ("b", "$9", "acd"),
        ("b", "${1", "a${1cd"),
        ("x", "y", None),
    ],
)
def test_the_first_match_is_replaced_as_go_does(
    expression: str, replacement: str, expected: str | None
) -> None:
    assert Expression(expression).replaced("abcd", replacement) == expected


@pytest.mark.parametrize("text", ["(", "(?=a)", r"\\1(a", "a" * (TEXT_MAX + 1)])
def test_what_re2_does_not_take_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        Expression(text)


def test_a_subject_that_is_too_long_matches_nothing() -> None:
    expression, subject = Expression("a"), "a" * (SUBJECT_MAX + 1)
    assert not expression.found(subject)
    assert expression.first(subject) == ""
    assert expression.replaced(subject, "b") is None


def test_expressions_are_equal_by_their_text() -> None:
    assert Expression("a") == Expression("a")
    assert Expression("a") != Expression("b")
