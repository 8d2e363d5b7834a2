"""Traefik's rule language: what rules mean, what is wrong with them; a table finds what a scan finds."""

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.codec.path_check import normal_path
from mesh.http.config.matchers import Always, And, HostMatcher, Matcher, Not, Or, Path, PathPrefix
from mesh.http.config.model import HttpRoute
from mesh.http.config.rule_parser import RuleError, read_rule
from mesh.http.routing.route_table import RouteTable, order


@dataclass
class Asking:
    host: str = "a.example"
    path: str = "/"
    method: str = "GET"
    query: str = ""
    client: str = "10.0.0.1"
    fields: dict[str, list[str]] = field(default_factory=dict)

    def header(self, name: str) -> list[str]:
        return self.fields.get(name, [])


@pytest.mark.parametrize(
    ("rule", "asking", "matches"),
    [
        ("Host(`a.example`)", Asking(), True),
        ("Host(`A.Example`)", Asking(), True),
        ('Host("a.example")', Asking(), True),
        ("Host(`b.example`)", Asking(), False),
        ("Host(`a.example`, `b.example`)", Asking(host="b.example"), True),
        ("host(`a.example`)", Asking(), True),
        ("HostRegexp(`^[a-z]+\\.example$`)", Asking(), True),
        ("HostRegexp(`^[b-z]+\\.example$`)", Asking(), False),
        ("Host(`[::1]`)", Asking(host="[::1]"), True),
        ("Path(`/a`)", Asking(path="/a"), True),
        ("Path(`/café au lait`)", Asking(path=normal_path("/caf%c3%a9%20au%20lait")), True),
        ("PathPrefix(`/%7ea%2fb`)", Asking(path=normal_path("/~a%2Fb/c")), True),
        ("PathPrefix(`/.`)", Asking(path="/.git/config"), True),
        ("PathPrefix(`/.`)", Asking(path="/a"), False),
        ("Path(`/a`)", Asking(path="/a/"), False),
        ("PathPrefix(`/a`)", Asking(path="/ab"), True),
        ("PathPrefix(`/a/`)", Asking(path="/ab"), False),
        ("PathRegexp(`\\.(png|jpg)$`)", Asking(path="/x.jpg"), True),
        ("Method(`post`)", Asking(method="POST"), True),
        ("Method(`POST`)", Asking(), False),
        ("Header(`X-Key`, `v`)", Asking(fields={"x-key": ["u", "v"]}), True),
        ("Header(`X-Key`, `v`)", Asking(), False),
        ("HeaderRegexp(`X-Key`, `^v+$`)", Asking(fields={"x-key": ["vvv"]}), True),
        ("Query(`a`, `b c`)", Asking(query="x=y&a=b+c"), True),
        ("Query(`a`)", Asking(query="a"), True),
        ("Query(`a`)", Asking(query="b=a"), False),
        ("QueryRegexp(`a`, `^[0-9]+$`)", Asking(query="a=12"), True),
        ("ClientIP(`10.0.0.0/8`)", Asking(), True),
        ("ClientIP(`10.0.0.2`)", Asking(), False),
        ("ClientIP(`::1`)", Asking(), False),
        ("!Host(`a.example`)", Asking(), False),
        ("!!Host(`a.example`)", Asking(), True),
        ("Host(`b`) || Host(`a.example`) && Path(`/x`)", Asking(path="/x"), True),
        ("Host(`b`) || Host(`a.example`) && Path(`/x`)", Asking(host="b"), True),
        ("(Host(`b`) || Host(`a.example`)) && Path(`/x`)", Asking(host="b"), False),
        (" ( Host( `a.example` ) ) ", Asking(), True),
    ],
)
def test_what_a_rule_means(rule: str, asking: Asking, matches: bool) -> None:
    assert read_rule(rule).matches(asking) is matches


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
def test_what_is_wrong_with_a_rule(rule: str, message: str) -> None:
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


def route(name: str, match: Matcher, priority: int = 1) -> HttpRoute:
    return HttpRoute(name, "s", "", match, (), "svc", (), priority, False)


_matches = st.recursive(
    st.sampled_from(
        [
            HostMatcher("a"),
            HostMatcher("b"),
            Path("/x"),
            PathPrefix("/"),
            PathPrefix("/x"),
            PathPrefix("/x/y"),
            Always(),
        ]
    ),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(Or, inner, inner),
        st.builds(And, inner, inner),
    ),
    max_leaves=4,
)


@given(
    st.lists(st.tuples(_matches, st.integers(1, 3)), max_size=12),
    st.sets(st.integers(0, 11)),
    st.sampled_from(["a", "b", "c", ""]),
    st.sampled_from(["/", "/x", "/x/y", "/x/yz", "/w"]),
)
def test_a_table_finds_what_a_scan_finds(
    rules: list[tuple[Matcher, int]], removed: set[int], host: str, path: str
) -> None:
    table = RouteTable()
    routes = [route(f"r{i:02}", match, priority) for i, (match, priority) in enumerate(rules)]
    for one in routes:
        table.add(one)
    for index in removed:
        if index < len(routes):
            table.remove(routes[index])
    left = sorted((one for i, one in enumerate(routes) if i not in removed), key=order)
    asking = Asking(host=host, path=path)
    assert table.find(asking) == next((one for one in left if one.match.matches(asking)), None)


def test_looking_up_does_not_ask_every_router() -> None:
    asked: list[str] = []

    @dataclass(frozen=True)
    class Noting(HostMatcher):
        def matches(self, request: object) -> bool:
            asked.append(self.name)
            return super().matches(request)  # type: ignore[arg-type]

    table = RouteTable()
    for i in range(5000):
        table.add(route(f"r{i}", Noting(f"h{i}")))
    found = table.find(Asking(host="h77"))
    assert found is not None
    assert found.name == "r77"
    assert asked == ["h77"]
