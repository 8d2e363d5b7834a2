"""Labels that people wrote, changed at random: values and problems come of them, and never an exception."""

from contextlib import suppress
from dataclasses import dataclass

from mesh.balance.policies import Endpoint
from mesh.catalog.model import Port, Service
from mesh.http.codec.h1_head import checked_fields
from mesh.http.codec.path_check import normal_path
from mesh.http.config.model import Declared, HttpRoute
from mesh.http.config.rule_parser import RuleError, read_rule
from mesh.http.hosts.claims import Breadth, areas_of
from mesh.http.labels.http import read_labels
from mesh.http.middleware.chain import build_handlers
from mesh.http.request_plan import RequestContext
from mesh.http.routing.reference_resolver import ReferenceResolver
from mesh.http.routing.route_table import RouteTable, order
from mesh.http.upstream.health_check import question
from tests.support.middleware_runs import run_all

TASK = Endpoint("10.0.0.1", 8080)
OWNERS = ("s1", "s2")


@dataclass(frozen=True)
class Asking:
    host: str = "a.example"
    path: str = "/"
    method: str = "GET"
    query: str = "a=1&b"
    client: str = "10.0.0.1"

    def header(self, name: str) -> list[str]:
        return ["v", "w"] if name == "x-key" else []


ASKING = (
    Asking(),
    Asking(path="/api/x", method="POST", client="fd00::1"),
    Asking(host="b.example", path=normal_path("/%7Ea%2f/../.git")),
    Asking(host=""),
)


class Rules:
    """Input: a rule."""

    def __call__(self, data: bytes) -> None:
        with suppress(RuleError):
            match = read_rule(data.decode("utf-8", "replace"))
            table = RouteTable()
            route = HttpRoute("r", "s", "", match, (), "svc", (), 1, False)
            table.add(route)
            for asking in ASKING:
                assert (table.find(asking) is route) == match.matches(asking)
            table.remove(route)
            assert not table._places


class Labels:
    """Input: lines KEY=VALUE; an empty line ends a service."""

    def __call__(self, data: bytes) -> None:
        directory, table = ReferenceResolver(), RouteTable()
        routes: set[tuple[str, str]] = set()
        given = data.decode("utf-8", "replace").split("\n\n")
        for owner, lines in zip(OWNERS, given, strict=False):
            labels = dict(line.partition("=")[::2] for line in lines.split("\n"))
            read = read_labels(Service(owner, f"shop_{owner}", ports=(Port(80, 8080),), labels=labels))
            assert all(problem.key and problem.message for problem in read.problems)
            for service in read.declared.services.values():
                checked_fields(question(service.check, TASK).lines)
            self._update(directory, table, routes, owner, read.declared)
        self._ask(directory, table)
        for owner in OWNERS:
            self._update(directory, table, routes, owner, Declared())
        assert not routes
        assert not table._places
        assert not list(directory.problems())

    def _update(
        self,
        directory: ReferenceResolver,
        table: RouteTable,
        routes: set[tuple[str, str]],
        owner: str,
        what: Declared,
    ) -> None:
        changed = directory.update(owner, owner, what)
        for route in changed.removed:
            routes.remove((route.owner, route.name))
            table.remove(route)
        for route in changed.added:
            assert (route.owner, route.name) not in routes
            routes.add((route.owner, route.name))
            table.add(route)

    def _ask(self, directory: ReferenceResolver, table: RouteTable) -> None:
        in_order = sorted(directory.routes(), key=order)
        list(directory.problems())
        for asking in ASKING:
            route = table.find(asking)
            assert route == _expected([one for one in in_order if one.match.matches(asking)])
            if route is None:
                continue
            assert directory.service(route.target) is not None
            directory.canaries_of(route.target)
            asked = RequestContext(asking, "http", asking.host, b"id", b"Basic YTpi", 0.0)
            treatment = run_all(build_handlers(route.middlewares), asked)
            self._check(treatment.path, treatment.answer.fields if treatment.answer else ())

    def _check(self, path: str, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        """What goes on is one line."""
        assert path.startswith("/")
        assert path.isascii()
        assert path.isprintable()
        assert b"\r" not in b"".join(value for _, value in fields)
        assert b"\n" not in b"".join(value for _, value in fields)


def _expected(matching: list[HttpRoute]) -> HttpRoute | None:
    """Of routes in order: the most particular one says which stack has it, and the first of that stack has
    it, unless it is less particular and another host's."""
    if not matching:
        return None
    place = min(map(_breadth, matching))
    scope = next(one for one in matching if _breadth(one) == place).scope
    return next(one for one in matching if one.scope == scope)


def _breadth(route: HttpRoute) -> int:
    if route.match.hosts is not None:
        return Breadth.ONE
    areas = areas_of(route.match)
    return Breadth.SOME if max((one.breadth for one in areas), default=Breadth.ALL) == Breadth.SOME else 2
