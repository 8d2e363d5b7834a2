"""The route table: the first in order of the routes that match, found without trying all of them."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.http.config.matchers import Always, And, HostMatcher, HostRegexp, Matcher, Not, Or, Path, PathPrefix
from mesh.http.config.model import HttpRoute
from mesh.http.config.regex import Expression
from mesh.http.routing.route_table import RouteTable, order
from tests.support.http_requests import FakeRequest


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
    request = FakeRequest(host=host, path=path)
    assert table.find(request) == next((one for one in left if one.match.matches(request)), None)


def test_a_lookup_does_not_try_every_router() -> None:
    compared: list[str] = []

    @dataclass(frozen=True)
    class Noting(HostMatcher):
        def matches(self, request: object) -> bool:
            compared.append(self.name)
            return super().matches(request)  # type: ignore[arg-type]

    table = RouteTable()
    for i in range(5000):
        table.add(route(f"r{i}", Noting(f"h{i}")))
    found = table.find(FakeRequest(host="h77"))
    assert found is not None
    assert found.name == "r77"
    assert compared == ["h77"]


def found(table: RouteTable, host: str = "a", path: str = "/") -> str:
    best = table.find(FakeRequest(host=host, path=path))
    return best.name if best is not None else ""


def test_of_one_stack_the_higher_priority_counts() -> None:
    table = RouteTable()
    table.add(route("low", HostMatcher("a"), 1))
    table.add(route("high", Always(), 2))
    assert found(table) == "high"
    assert found(table, "b") == "high"


def test_between_stacks_the_one_that_names_the_host_counts_whatever_the_priority() -> None:
    table = RouteTable()
    table.add(replace(route("named", HostMatcher("a"), 1), scope="one"))
    table.add(replace(route("fits", HostRegexp(Expression("^[ab]$")), 9), scope="two"))
    table.add(replace(route("all", Always(), 99), scope="three"))
    assert [found(table, host) for host in "abc"] == ["named", "fits", "all"]


def test_of_expressions_of_two_stacks_the_older_counts() -> None:
    table = RouteTable()
    table.add(replace(route("new", HostRegexp(Expression("a")), 9), scope="one", seniority=2.0))
    table.add(replace(route("old", HostRegexp(Expression("a")), 1), scope="two", seniority=1.0))
    assert found(table) == "old"


def test_a_host_that_is_assigned_to_a_stack_goes_to_no_other() -> None:
    table = RouteTable({"a": "owner"}.get)
    table.add(replace(route("all", Always()), scope="other"))
    assert found(table) == ""
    table.add(replace(route("own", Always()), scope="owner"))
    assert found(table) == "own"


def test_only_hosts_that_are_named_are_served_in_particular() -> None:
    table = RouteTable()
    one = route("one", HostMatcher("a"))
    table.add(one)
    table.add(route("all", Always()))
    assert (table.serves("a"), table.serves("b")) == (True, False)
    table.remove(one)
    assert not table.serves("a")
    table.clear()
    assert found(table) == ""
