"""Which stack holds what: claims that are held, that wait, and parts that others hold."""

from dataclasses import dataclass

from mesh.http.config.model import HttpRoute
from mesh.http.config.rule_parser import read_rule
from mesh.http.hosts.assigned import AssignedHosts
from mesh.http.hosts.claims import Area, Breadth, Claims, areas_of
from mesh.http.hosts.entitlement import entitled
from mesh.http.hosts.ownership import HostOwnership


@dataclass(frozen=True)
class FakeRequest:
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
            request = FakeRequest(host, slash + path)
            if served is not None and (served.match.hosts is None or host in served.match.hosts):
                found += [stack] * served.match.matches(request)
        return found


def test_the_first_stack_holds_an_area_until_it_lets_go() -> None:
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


def test_claims_that_wait_are_held_in_the_order_of_arrival() -> None:
    book = Book()
    for stack in ("one", "two", "three"):
        book.claim(stack, "Host(`a`)")
    book.withdraw("one")
    assert book.whose("a/") == ["two"]
    book.claim("one", "Host(`a`)")
    book.withdraw("two")
    assert book.whose("a/") == ["three"]


def test_a_claim_that_waits_blocks_no_other() -> None:
    """A later claim may hold the rest of the area."""
    book = Book()
    book.claim("one", "Host(`a`) && PathPrefix(`/x`)")
    book.claim("two", "Host(`a`) && PathPrefix(`/x/y`)")
    book.claim("three", "Host(`a`)")
    assert book.whose("a/z") == ["three"]
    book.withdraw("one")
    assert book.whose("a/x/y") == ["three"], "it has had the rest, and this is in it"


def test_of_claims_that_come_together_the_narrowest_is_held_first() -> None:
    book = Book()
    book.rules = {"ape": "Host(`a`)", "zoo": "Host(`a`) && PathPrefix(`/api`)"}
    for stack, rule in book.rules.items():
        book.ownership.claim(stack, stack, claims(rule))
    book.ownership.settle(1.0)
    assert (book.whose("a/api"), book.whose("a/")) == (["zoo"], ["ape"])


def test_of_equal_claims_that_come_together_the_older_service_holds() -> None:
    ownership = HostOwnership()
    ownership.claim("s1", "ape", claims("Host(`a`)"), created="2026-02-01T00:00:00Z")
    ownership.claim("s2", "zoo", claims("Host(`a`)"), created="2026-01-01T00:00:00Z")
    ownership.settle(1.0)
    assert ownership.right("zoo", Area(Breadth.ONE, "a")).refused_by is None


def test_an_area_moves_between_the_services_of_its_stack() -> None:
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


def test_a_stack_keeps_the_part_that_it_still_claims() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`)")
    book.claim("ape", "Host(`a`)")
    book.claim("zoo", "Host(`a`) && PathPrefix(`/app`)")
    assert (book.whose("a/app"), book.whose("a/")) == (["zoo"], ["ape"])


def test_a_refused_part_of_a_rule_does_not_take_from_a_granted_one() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`) && PathPrefix(`/x`)")
    book.claim("ape", "Host(`a`)")
    book.claim("zoo", "Host(`a`) && PathPrefix(`/x`) || Host(`a`) && Method(`GET`)")
    assert (book.whose("a/x"), book.whose("a/")) == (["zoo"], ["ape"])


def test_an_area_is_kept_for_its_stack_during_a_hand_over() -> None:
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


def test_a_removed_stack_has_no_hand_over() -> None:
    book = Book(hand_over=10.0)
    book.claim("zoo", "Host(`a`)", now=0.0)
    book.claim("ape", "Host(`a`)", now=1.0)
    book.withdraw("zoo")
    assert book.whose("a/") == ["ape"]


def test_withdrawn_claims_leave_nothing() -> None:
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


def test_a_restart_keeps_who_holds_what() -> None:
    book = Book()
    book.claim("zoo", "Host(`a`)")
    book.claim("ape", "Host(`a`)")
    book.ownership.restart()
    for stack in ("ape", "zoo"):
        book.ownership.claim(stack, stack, claims("Host(`a`)"))
    book.ownership.settle(9.0)
    assert book.whose("a/") == ["zoo"]


def test_names_have_the_time_since_which_each_stack_declares_them() -> None:
    ownership = HostOwnership()
    ownership.claim("s1", "zoo", claims(names=("app",)))
    ownership.settle(5.0)
    ownership.claim("s0", "ape", claims(names=("app",)))
    ownership.settle(6.0)
    assert [ownership.since_of(("service", "app"), stack) for stack in ("zoo", "ape")] == [5.0, 6.0]
    assert ownership.holds("s1") == {"service app": 5.0}


def test_a_host_that_is_assigned_belongs_to_no_other_stack() -> None:
    book = Book(hosts=AssignedHosts({"zoo": ("a",)}))
    book.claim("ape", "Host(`a`) || Host(`b`)")
    assert (book.whose("a/"), book.whose("b/")) == ([], ["ape"])
    book.claim("zoo", "Host(`a`)")
    assert book.whose("a/") == ["zoo"]


def test_a_path_that_is_assigned_belongs_to_no_other_stack() -> None:
    """A part of a host that somebody else has: for the stack that it is given to, and for nobody else."""
    book = Book(hosts=AssignedHosts({"api": ("a/api", "*.b/api"), "zoo": ("c",), "ape": ("c/x",)}))
    book.claim("zoo", "Host(`a`) || Host(`c`)")
    assert (book.whose("a/"), book.whose("a/api/1"), book.whose("c/")) == (["zoo"], [], ["zoo"])
    book.claim("api", "Host(`a`) && PathPrefix(`/api`) || Host(`a`) && PathPrefix(`/web`)")
    assert (book.whose("a/api/1"), book.whose("a/web"), book.whose("a/")) == (["api"], ["zoo"], ["zoo"])
    book.claim("ape", "Host(`a`) && PathPrefix(`/api/v2`) || Host(`c`) && PathPrefix(`/x`)")
    assert (book.whose("a/api/v2"), book.whose("c/x"), book.whose("c/")) == (["api"], ["ape"], ["zoo"])
