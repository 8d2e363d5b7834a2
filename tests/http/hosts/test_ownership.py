"""Who has what: claims that are held, that wait, and what others have inside them."""

from dataclasses import dataclass

import pytest

from mesh.catalog.model import Service
from mesh.http.config.matchers import PathKey
from mesh.http.config.model import HttpRoute
from mesh.http.config.owner import owner_of
from mesh.http.config.rule_parser import read_rule
from mesh.http.hosts.assigned import AssignedHosts, pattern
from mesh.http.hosts.claims import AREAS_MAX, Area, Breadth, Claims, areas_of, covers
from mesh.http.hosts.entitlement import entitled
from mesh.http.hosts.ownership import HostOwnership


@dataclass(frozen=True)
class Asking:
    host: str
    path: str
    method: str = "GET"
    query: str = ""
    client: str = "192.0.2.1"

    def header(self, _name: str) -> list[str]:
        return []


def claims(*rules: str, names: tuple[str, ...] = ()) -> Claims:
    areas = frozenset(area for rule in rules for area in areas_of(read_rule(rule)))
    return Claims(areas, frozenset(("service", name) for name in names))


class Book:
    """Stacks claim what rules say, one service each."""

    def __init__(self, hand_over: float = 0.0, hosts: AssignedHosts | None = None) -> None:
        self.ownership = HostOwnership(hosts or AssignedHosts({}), hand_over)
        self.now = 0.0
        self.rules: dict[str, str] = {}

    def claim(self, stack: str, rule: str = "", service: str = "", now: float | None = None) -> None:
        self.now = self.now + 1 if now is None else now
        self.rules[stack] = rule
        self.ownership.claim(service or stack, stack, claims(rule) if rule else Claims())
        self.ownership.settle(self.now)

    def withdraw(self, service: str) -> None:
        self.now += 1
        self.ownership.withdraw(service)
        self.ownership.settle(self.now)

    def whose(self, url: str) -> list[str]:
        """The stacks whose routers would take it."""
        host, slash, path = url.partition("/")
        found = []
        for stack, rule in self.rules.items():
            if not rule:
                continue
            route = HttpRoute("r", stack, rule, read_rule(rule), (), "s", (), 1, False, scope=stack)
            served, _ = entitled(route, self.ownership)
            asking = Asking(host, slash + path)
            if served is not None and (served.match.hosts is None or host in served.match.hosts):
                found += [stack] * served.match.matches(asking)
        return found


@pytest.mark.parametrize(
    ("rule", "keys"),
    [
        ("Host(`a`)", ["a"]),
        ("Host(`a`) && PathPrefix(`/`)", ["a"]),
        ("Host(`a`) && (PathPrefix(`/x`) || Path(`/y`))", ["a/x", "a=/y"]),
        ("(Host(`a`) || Host(`b`)) && PathPrefix(`/x`)", ["a/x", "b/x"]),
        ("Host(`a`) && PathPrefix(`/x`) && PathPrefix(`/x/y`)", ["a/x/y"]),
        ("Host(`a`) && PathPrefix(`/x`) && PathPrefix(`/y`)", []),
        ("Host(`a`) && Host(`b`)", []),
        ("Host(`a`) || PathPrefix(`/x`)", ["*/x", "a"]),
        ("HostRegexp(`.*`)", ["*"]),
        ("HostRegexp(`^(.+)$`) && Path(`/x`)", ["*=/x"]),
        ("!Host(`a`)", ["*"]),
        ("Method(`GET`)", ["*"]),
        ("Host(`a`) && !PathPrefix(`/x`)", ["a"]),
    ],
)
def test_what_a_rule_claims(rule: str, keys: list[str]) -> None:
    assert [area.key for area in areas_of(read_rule(rule))] == keys


def test_hosts_that_fit_an_expression() -> None:
    (area,) = areas_of(read_rule("HostRegexp(`^[a-z]+\\.tenants\\.example$`)"))
    assert (area.breadth, area.fits) == (Breadth.SOME, ("^[a-z]+\\.tenants\\.example$",))
    assert area.group.startswith("~")


def test_a_rule_with_too_many_areas_claims_its_hosts() -> None:
    hosts = " || ".join(f"Host(`h{one}`)" for one in range(60))
    paths = " || ".join(f"Path(`/{one}`)" for one in range(60))
    found = areas_of(read_rule(f"({hosts}) && ({paths})"))
    assert len(found) == 60 <= AREAS_MAX
    assert {area.path for area in found} == {None}


def test_what_covers_what() -> None:
    api, under, exact = PathKey("/api", False), PathKey("/api/x", False), PathKey("/api/x", True)
    assert covers(None, api)
    assert not covers(api, None)
    assert covers(api, under)
    assert covers(under, exact)
    assert not covers(exact, under)
    assert covers(exact, exact)


def test_the_first_has_it_until_it_lets_go() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`)")
    book.claim("ape", "Host(`a`) && PathPrefix(`/x`)")
    assert book.whose("a/x") == ["zoo"]
    book.claim("zoo", "Host(`b`)")
    assert book.whose("a/x") == ["ape"]
    assert book.whose("a/") == []
    book.claim("zoo", "Host(`a`)")
    assert (book.whose("a/x"), book.whose("a/")) == (["ape"], ["zoo"])
    assert book.ownership.refusals == {"ape": 1}


def test_who_was_refused_gets_it_in_the_order_of_asking() -> None:
    book = Book()
    for stack in ("one", "two", "three"):
        book.claim(stack, "Host(`a`)")
    book.withdraw("one")
    assert book.whose("a/") == ["two"]
    book.claim("one", "Host(`a`)")
    book.withdraw("two")
    assert book.whose("a/") == ["three"]


def test_what_was_never_held_is_in_nobodys_way() -> None:
    """A claim that waits blocks none that came later and has what nobody else had."""
    book = Book()
    book.claim("one", "Host(`a`) && PathPrefix(`/x`)")
    book.claim("two", "Host(`a`) && PathPrefix(`/x/y`)")
    book.claim("three", "Host(`a`)")
    assert book.whose("a/z") == ["three"]
    book.withdraw("one")
    assert book.whose("a/x/y") == ["three"], "it has had the rest, and this is in it"


def test_of_those_that_come_at_once_most_are_served() -> None:
    book = Book()
    book.rules = {"ape": "Host(`a`)", "zoo": "Host(`a`) && PathPrefix(`/api`)"}
    for stack, rule in book.rules.items():
        book.ownership.claim(stack, stack, claims(rule))
    book.ownership.settle(1.0)
    assert (book.whose("a/api"), book.whose("a/")) == (["zoo"], ["ape"])


def test_the_older_service_comes_first_of_those_that_come_at_once() -> None:
    ownership = HostOwnership()
    ownership.claim("s1", "ape", claims("Host(`a`)"), created="2026-02-01T00:00:00Z")
    ownership.claim("s2", "zoo", claims("Host(`a`)"), created="2026-01-01T00:00:00Z")
    ownership.settle(1.0)
    assert ownership.right("zoo", Area(Breadth.ONE, "a")).refused_by is None


def test_within_a_stack_it_moves() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`)", "blue")
    book.claim("ape", "Host(`a`)")
    book.ownership.claim("green", "zoo", claims("Host(`a`)"))
    book.withdraw("blue")
    assert book.whose("a/") == ["zoo"]
    book.ownership.claim("green", "zoo", Claims())
    book.ownership.claim("red", "zoo", claims("Host(`a`)"))
    book.ownership.settle(9.0)
    assert book.whose("a/") == ["zoo"]


def test_a_part_of_ones_own_stays_ones_own() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`)")
    book.claim("ape", "Host(`a`)")
    book.claim("zoo", "Host(`a`) && PathPrefix(`/app`)")
    assert (book.whose("a/app"), book.whose("a/")) == (["zoo"], ["ape"])


def test_a_part_that_is_refused_takes_nothing_from_one_that_is_not() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`) && PathPrefix(`/x`)")
    book.claim("ape", "Host(`a`)")
    book.claim("zoo", "Host(`a`) && PathPrefix(`/x`) || Host(`a`) && Method(`GET`)")
    assert (book.whose("a/x"), book.whose("a/")) == (["zoo"], ["ape"])


def test_while_a_deploy_moves_it_nobody_else_gets_it() -> None:
    book = Book(hand_over=10.0)
    book.claim("zoo", "Host(`a`)", "blue", now=0.0)
    book.claim("ape", "Host(`a`)", now=1.0)
    book.claim("zoo", "", "blue", now=2.0)
    assert book.whose("a/") == []
    book.claim("zoo", "Host(`a`)", "green", now=5.0)
    assert book.whose("a/") == ["zoo"]
    book.claim("zoo", "", "green", now=6.0)
    book.ownership.settle(15.9)
    assert book.whose("a/") == []
    book.ownership.settle(16.0)
    assert book.whose("a/") == ["ape"], "it has let go"


def test_a_stack_that_is_gone_hands_nothing_over() -> None:
    book = Book(hand_over=10.0)
    book.claim("zoo", "Host(`a`)", now=0.0)
    book.claim("ape", "Host(`a`)", now=1.0)
    book.withdraw("zoo")
    assert book.whose("a/") == ["ape"]


def test_nothing_is_left() -> None:
    book = Book(hand_over=10.0)
    rules = ("Host(`a`) || HostRegexp(`x`)", "PathPrefix(`/`)", "Host(`a`) && Path(`/x`)")
    for number, rule in enumerate(rules):
        book.claim(f"s{number}", rule)
    for number in range(len(rules)):
        book.withdraw(f"s{number}")
    ownership = book.ownership
    left = (ownership._groups, ownership._services, ownership._members, ownership._names, ownership._leaving)
    assert not any(left)
    assert not ownership._by_expression


def test_a_restart_changes_nothing() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`)")
    book.claim("ape", "Host(`a`)")
    book.ownership.restart()
    for stack in ("ape", "zoo"):
        book.ownership.claim(stack, stack, claims("Host(`a`)"))
    book.ownership.settle(9.0)
    assert book.whose("a/") == ["zoo"]


def test_who_has_had_a_name() -> None:
    ownership = HostOwnership()
    ownership.claim("s1", "zoo", claims(names=("app",)))
    ownership.settle(5.0)
    ownership.claim("s0", "ape", claims(names=("app",)))
    ownership.settle(6.0)
    assert [ownership.since_of(("service", "app"), stack) for stack in ("zoo", "ape")] == [5.0, 6.0]
    assert ownership.holds("s1") == {"service app": 5.0}


def test_hosts_by_configuration() -> None:
    hosts = AssignedHosts({"zoo": ("a.example", "*.zoo.example"), "ape": ("ape.zoo.example",), "all": ("*",)})
    assert [hosts(one) for one in ("a.example", "x.y.zoo.example", "ape.zoo.example", "zoo.example")] == [
        "zoo",
        "zoo",
        "ape",
        "all",
    ]
    book = Book(hosts=AssignedHosts({"zoo": ("a",)}))
    book.claim("ape", "Host(`a`) || Host(`b`)")
    assert (book.whose("a/"), book.whose("b/")) == ([], ["ape"])
    book.claim("zoo", "Host(`a`)")
    assert book.whose("a/") == ["zoo"]


def test_paths_by_configuration() -> None:
    """A part of a host that somebody else has: for the stack that it is given to, and for nobody else."""
    book = Book(hosts=AssignedHosts({"api": ("a/api", "*.b/api"), "zoo": ("c",), "ape": ("c/x",)}))
    book.claim("zoo", "Host(`a`) || Host(`c`)")
    assert (book.whose("a/"), book.whose("a/api/1"), book.whose("c/")) == (["zoo"], [], ["zoo"])
    book.claim("api", "Host(`a`) && PathPrefix(`/api`) || Host(`a`) && PathPrefix(`/web`)")
    assert (book.whose("a/api/1"), book.whose("a/web"), book.whose("a/")) == (["api"], ["zoo"], ["zoo"])
    book.claim("ape", "Host(`a`) && PathPrefix(`/api/v2`) || Host(`c`) && PathPrefix(`/x`)")
    assert (book.whose("a/api/v2"), book.whose("c/x"), book.whose("c/")) == (["api"], ["ape"], ["zoo"])
    hosts = AssignedHosts({"api": ("*.b/api",), "zoo": ("x.b/api", "*/z")})
    assert hosts.parts("x.b") == [("/api", "zoo"), ("/z", "zoo")]
    assert hosts.parts("y.b") == [("/api", "api"), ("/z", "zoo")]
    assert pattern("Shop.example./API") == "shop.example/API"
    assert pattern("shop.example/") == "shop.example"


@pytest.mark.parametrize("text", ["a b", "", "*.*.x", "a/b c", "/b", "*x", "a..b", "x" * 300])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="must be a host"):
        pattern(text)


def test_whose_a_service_is() -> None:
    assert owner_of(Service("s", "web", labels={"com.docker.stack.namespace": "web"})) == "web"
    assert owner_of(Service("s", "web")) == "service web"
