"""References between routers, services and middlewares: what a name leads to, and what a change touches."""

import pytest

from mesh.http.config.model import Declared
from mesh.http.middleware.kinds.strip_prefix import StripPrefix
from mesh.http.routing.reference_resolver import ReferenceResolver
from tests.http.labels.test_http import MIDDLEWARE, PORT, ROUTER, SERVICE, STACK, keys, read


def declare(labels: dict[str, str], id_: str = "s1") -> Declared:
    """All of one stack."""
    return read(labels | STACK, PORT, id_=id_, name=id_).declared


def test_a_middleware_of_another_service_is_found_whenever_it_comes() -> None:
    resolver = ReferenceResolver()
    user = declare({f"{ROUTER}.r.rule": "Host(`a`)", f"{ROUTER}.r.middlewares": "auth@swarm,chain"})
    changed = resolver.update("s1", "web", user)
    assert changed.added == []
    (problem,) = resolver.problems()
    assert (problem.file, problem.key) == ("web", f"{ROUTER}.r.middlewares")
    other = declare(
        {
            f"{MIDDLEWARE}.auth.stripprefix.prefixes": "/x",
            f"{MIDDLEWARE}.chain.chain.middlewares": "auth",
            f"{SERVICE}.other.loadbalancer.server.port": "80",
        },
        "s2",
    )
    (added,) = [one for one in resolver.update("s2", "other", other).added if one.name == "r"]
    assert added.middlewares == (StripPrefix(("/x",)),) * 2
    assert list(resolver.problems()) == []
    removed = resolver.update("s2", "other", Declared()).removed
    assert "r" in [one.name for one in removed]


@pytest.mark.parametrize("reference", ["auth@file", "nobody", "api@internal"])
def test_what_is_not_there_takes_the_router_out(reference: str) -> None:
    resolver = ReferenceResolver()
    labels = {f"{ROUTER}.r.rule": "Host(`a`)", f"{ROUTER}.r.middlewares": reference}
    assert resolver.update("s1", "web", declare(labels)).added == []


def test_a_chain_that_is_part_of_itself() -> None:
    resolver = ReferenceResolver()
    labels = {
        f"{ROUTER}.r.rule": "Host(`a`)",
        f"{ROUTER}.r.middlewares": "one",
        f"{MIDDLEWARE}.one.chain.middlewares": "two",
        f"{MIDDLEWARE}.two.chain.middlewares": "one",
    }
    resolver.update("s1", "web", declare(labels))
    (problem,) = resolver.problems()
    assert "part of itself" in problem.message


def test_a_router_declared_twice_and_differently_is_the_firsts() -> None:
    """Else anybody's second one would take both down."""
    resolver = ReferenceResolver()
    first = declare({f"{ROUTER}.r.rule": "Host(`a`)"})
    second = declare({f"{ROUTER}.r.rule": "Host(`b`)"}, "s2")
    assert len(resolver.update("s1", "one", first).added) == 1
    changed = resolver.update("s2", "two", second)
    assert (changed.removed, changed.added) == ([], [])
    (problem,) = [one for one in resolver.problems() if one.key == f"{ROUTER}.r.rule"]
    assert (problem.file, "one declares a router of this name too" in problem.message) == ("two", True)
    (added,) = resolver.update("s1", "one", Declared()).added
    assert added.rule == "Host(`b`)"


def test_what_is_the_same_as_before_changes_nothing() -> None:
    resolver = ReferenceResolver()
    declared = declare({f"{ROUTER}.r.rule": "Host(`a`)"})
    resolver.update("s1", "one", declared)
    changed = resolver.update("s1", "one", declared)
    assert (changed.removed, changed.added, changed.services) == ([], [], set())


def test_canaries_follow_what_is_declared() -> None:
    resolver = ReferenceResolver()

    def canary(percent: str, of: str = "mesh-app") -> dict[str, str]:
        return {"mesh.http.port": "80", "mesh.http.canary_of": of, "mesh.http.canary": percent}

    def declare(id_: str, labels: dict[str, str]) -> None:
        resolver.update(id_, id_, read(labels | STACK, id_=id_, name=id_).declared)

    def shares(of: str = "mesh-app") -> list[tuple[str, int]]:
        return [(one.name, one.weight) for one in resolver.canaries_of(f"{of}@shop")]

    declare("b", canary("5"))
    assert [problem.message for problem in resolver.problems()] == ["there is no service 'mesh-app'"]
    declare("app", {"mesh.http.port": "80"})
    declare("a", canary("10"))
    assert shares() == [("mesh-a", 10), ("mesh-b", 5)]
    declare("a", canary("11"))
    assert shares() == [("mesh-a", 11), ("mesh-b", 5)]
    declare("b", canary("0"))
    assert shares() == [("mesh-a", 11)]
    declare("a", canary("11", of="mesh-b"))
    assert (shares(), shares("mesh-b")) == ([], [("mesh-a", 11)])
    declare("a", {})
    assert shares("mesh-b") == []
    assert list(resolver.problems()) == []


def test_a_service_declared_twice_is_the_firsts_and_the_other_is_told() -> None:
    resolver = ReferenceResolver()
    for id_ in ("s2", "s1"):
        labels = {
            f"{SERVICE}.app.loadbalancer.server.port": "80",
            f"{ROUTER}.{id_}.rule": f"Host(`{id_}`)",
        }
        resolver.update(id_, f"the-{id_}", declare(labels, id_))
    found = resolver.service("app@shop")
    assert found is not None
    assert found.owner == "s1"
    (problem,) = resolver.problems()
    assert (problem.file, problem.key) == ("the-s2", f"{SERVICE}.app")
    assert "the-s1 declares this name too" in problem.message


def test_certificates_that_are_to_be_issued() -> None:
    found = read(
        {
            f"{ROUTER}.a.rule": "Host(`b.example`) || Host(`A.example`)",
            f"{ROUTER}.a.tls.certresolver": "le",
            f"{ROUTER}.b.rule": "Host(`c.example`)",
            f"{ROUTER}.b.tls.certresolver": "le",
            f"{ROUTER}.b.tls.domains[1].main": "e.example",
            f"{ROUTER}.b.tls.domains[0].main": "D.example",
            f"{ROUTER}.b.tls.domains[0].sans": "*.d.example, under_score.d.example, no name",
            f"{ROUTER}.c.rule": "Host(`f.example`)",
            f"{ROUTER}.c.tls": "true",
            f"{SERVICE}.s.loadbalancer.server.port": "80",
            "mesh.http.host": "ours.example",
            "mesh.http.acme": "true",
            "mesh.http.port": "80",
            "mesh.http.other.host": "plain.example",
            "mesh.http.other.acme": "false",
        }
    )
    resolver = ReferenceResolver()
    resolver.update("s1", "shop_web", found.declared)
    assert {route.name: route.certificates for route in resolver.routes()} == {
        "a": (("a.example", "b.example"),),
        "b": (("*.d.example", "d.example", "under_score.d.example"), ("e.example",)),
        "c": (),
        "mesh-shop-web": (("ours.example",),),
        "mesh-shop-web.other": (),
    }
    assert {name: one.tls for name, one in found.declared.routers.items()} == {
        "a": True,
        "b": True,
        "c": True,
        "mesh-shop-web": True,
        "mesh-shop-web.other": False,
    }
    assert keys(found) == [f"{ROUTER}.b.tls.domains[0].sans"]
