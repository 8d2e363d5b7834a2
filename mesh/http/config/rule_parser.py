"""Parses Traefik's rule language (v3) into `matchers`. Pure.

rule   = term *( "||" term )
term   = factor *( "&&" factor )
factor = "!" factor / "(" rule ")" / Name "(" [ text *( "," text ) ] ")"
text   = `…` / "…"
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network

from mesh.http.config import matchers
from mesh.http.config.matchers import And, Matcher, Not, Or
from mesh.http.config.regex import Expression

RULE_MAX = 4096  # characters
DEPTH_MAX = 50  # nested parentheses and negations


class RuleError(ValueError):
    """The rule cannot be read; the text says where and why."""


_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z]+)|(?P<text>`[^`]*`|\"[^\"]*\")|(?P<sign>&&|\|\||[!(),]))")


_HOST = re.compile(r"[0-9A-Za-z._-]*[0-9A-Za-z_-]\.?|\[[0-9A-Fa-f:.]+\]")  # a name, or an address as in URLs


def read_rule(text: str) -> Matcher:
    """The matcher of a rule such as ``Host(`a.example`) && PathPrefix(`/api`)``. Raises RuleError."""
    if len(text) > RULE_MAX:
        raise RuleError(f"longer than {RULE_MAX} characters")
    return _Parser(text).parse()


class _Parser:
    """Recursive descent: one method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._kind, self._token, self._start = "", "", 0
        self._advance()

    def parse(self) -> Matcher:
        match = self._parse_or()
        if self._token:
            raise self._expected("'&&', '||' or the end")
        return match

    def _parse_or(self) -> Matcher:
        match = self._parse_and()
        while self._token == "||":
            self._advance()
            match = Or(match, self._parse_and())
        return match

    def _parse_and(self) -> Matcher:
        match = self._parse_factor()
        while self._token == "&&":
            self._advance()
            match = And(match, self._parse_factor())
        return match

    def _parse_factor(self) -> Matcher:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise RuleError(f"nested more than {DEPTH_MAX} deep")
        try:
            if self._token == "!":
                self._advance()
                return Not(self._parse_factor())
            if self._token == "(":
                self._advance()
                match = self._parse_or()
                self._expect(")")
                return match
            return self._parse_matcher()
        finally:
            self._depth -= 1

    def _parse_matcher(self) -> Matcher:
        if self._kind != "word":
            raise self._expected("a matcher such as Host or PathPrefix")
        name, start = self._token, self._start
        self._advance()
        self._expect("(")
        arguments: list[str] = []
        while self._kind == "text":
            arguments.append(self._token[1:-1])
            self._advance()
            if self._token != ",":
                break
            self._advance()
            if self._kind != "text":
                raise self._expected("a value in backticks")
        self._expect(")")
        try:
            return _build_matcher(name, arguments)
        except ValueError as error:
            raise RuleError(f"{name} at {start + 1}: {error}") from error

    def _expect(self, sign: str) -> None:
        if self._token != sign:
            raise self._expected(f"'{sign}'" if sign != ")" else "a value in backticks or ')'")
        self._advance()

    def _advance(self) -> None:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            rest = self._text[self._at :].lstrip()
            self._start = len(self._text) - len(rest)
            if rest:
                raise RuleError(f"at {self._start + 1}: {rest[:12]!r} is no part of a rule")
            self._kind = self._token = ""
            return
        self._kind = found.lastgroup or ""
        self._token = found[found.lastgroup or 0]
        self._start = found.start(self._kind)
        self._at = found.end()

    def _expected(self, what: str) -> RuleError:
        return RuleError(f"at {self._start + 1}: {what} is expected, not {self._token or 'the end'}")


_FLAGS = re.compile(r"\(\?[A-Za-z-]*[:)]")
_MAY_BE_NOTHING = re.compile(r"[*?{]")
_EMPTY_BRANCH = re.compile(r"^\||\|$|\(\||\|\)|\|\|")


def is_vacuous(expression: Expression) -> bool:
    """Does the expression, or one of its alternatives, match everything by mistake? An unset variable leaves
    that of `${DOMAIN}` or `^(${A}|b)`. `.*` is written on purpose and is not vacuous."""
    if not expression.found(""):
        return False
    text = _FLAGS.sub("(", expression.text)
    return _MAY_BE_NOTHING.search(text) is None or _EMPTY_BRANCH.search(text) is not None


def _expression(text: str) -> Expression:
    if re.search(r"\{[A-Za-z]+:", text):
        raise ValueError("{name:…} is Traefik v2's; v3 takes a plain regular expression")
    expression = Expression(text)
    if is_vacuous(expression):
        raise ValueError(f"{text!r} is an empty expression, which everything matches (an unset variable?)")
    return expression


def _host(name: str) -> Matcher:
    if not name.isascii():
        raise ValueError(f"{name!r} has letters that requests write as xn--…")
    if _HOST.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no host name")
    return matchers.HostMatcher(name.lower().rstrip("."))


def _path(make: Callable[[str], Matcher]) -> Callable[[str], Matcher]:
    def build(path: str) -> Matcher:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} does not begin with /")
        if "{" in path:
            raise ValueError("{…} in a path is Traefik v2's; use PathRegexp")
        if any(part in path for part in ("//", "/./", "/../")):
            raise ValueError(f"{path!r} is in no request: //, /./ and /../ are taken out before")
        return make(matchers.escaped(path))

    return build


def _header(name: str, value: str) -> Matcher:
    return matchers.HeaderMatcher(name.lower(), value)


def _header_regexp(name: str, value: str) -> Matcher:
    return matchers.HeaderRegexp(name.lower(), _expression(value))


def _query(name: str, value: str | None = None) -> Matcher:
    return matchers.QueryMatcher(name, value)


def _client_ip(text: str) -> Matcher:
    return matchers.ClientIP(ip_network(text, strict=False))


_MATCHERS: Mapping[str, tuple[Callable[..., Matcher], int, int]] = {  # → builder, least and most values
    "host": (_host, 1, 1),
    "hostregexp": (lambda text: matchers.HostRegexp(_expression(text)), 1, 1),
    "path": (_path(matchers.Path), 1, 1),
    "pathprefix": (_path(matchers.PathPrefix), 1, 1),
    "pathregexp": (lambda text: matchers.PathRegexp(_expression(text)), 1, 1),
    "method": (lambda name: matchers.Method(name.upper()), 1, 1),
    "header": (_header, 2, 2),
    "headerregexp": (_header_regexp, 2, 2),
    "query": (_query, 1, 2),
    "queryregexp": (lambda name, text: matchers.QueryRegexp(name, _expression(text)), 2, 2),
    "clientip": (_client_ip, 1, 1),
}
# Matchers that refuse empty values themselves.
_CHECK_EMPTY_VALUES = ("host", "path", "pathprefix", "clientip")
_V2_NAMES = {"headers": "Header", "headersregexp": "HeaderRegexp"}


def _build_matcher(name: str, arguments: list[str]) -> Matcher:
    known = name.lower()
    if known in _V2_NAMES:
        raise ValueError(f"is Traefik v2's; v3 calls it {_V2_NAMES[known]}")
    if known not in _MATCHERS:
        raise ValueError("no such matcher")
    make, least, most = _MATCHERS[known]
    if known not in _CHECK_EMPTY_VALUES and any(not one.strip() for one in arguments):
        raise ValueError("has an empty value (an unset variable?)")
    if known in ("host", "path", "pathprefix", "method", "clientip") and len(arguments) > 1:
        # Several values were v2's way to say "one of these". It cannot be meant otherwise.
        matches = [make(one) for one in arguments]
        match = matches[0]
        for other in matches[1:]:
            match = Or(match, other)
        return match
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} or {most}"
        raise ValueError(f"takes {wanted} values, not {len(arguments)}")
    return make(*arguments)
