"""Which certificates are wanted, as routers come and go."""

from dataclasses import replace

from mesh.http.config.acme_domains import AcmeDomains
from mesh.http.config.matchers import Always
from mesh.http.config.model import HttpRoute

PLAIN = HttpRoute("r", "s", "", Always(), (), "s", (), 1, True)


def issued(*groups: tuple[str, ...]) -> HttpRoute:
    return replace(PLAIN, certificates=groups)


def test_as_long_as_a_router_wants_it() -> None:
    certified = AcmeDomains()
    one, other = issued(("a.example", "b.example")), issued(("a.example", "b.example"), ("c.example",))
    certified.add(one)
    certified.add(other)
    assert sorted(certified.wanted) == [("a.example", "b.example"), ("c.example",)]
    certified.remove(other)
    assert certified.wanted == [("a.example", "b.example")]
    assert (certified.has("a.example"), certified.has("c.example")) == (True, False)
    certified.remove(one)
    assert certified.wanted == []
    assert not certified.has("a.example")


def test_others_change_nothing() -> None:
    certified = AcmeDomains()
    certified.add(PLAIN)
    assert (certified.wanted, certified.version) == ([], 0)


def test_whose_a_certificate_is() -> None:
    certified = AcmeDomains()
    one, other = replace(issued(("a",)), scope="zoo"), replace(issued(("a",)), scope="ape")
    certified.add(one)
    assert (certified.owner(("a",)), certified.owner(("b",))) == ("zoo", "")
    certified.add(other)
    assert certified.owner(("a",)) == "ape"
    certified.remove(other)
    assert certified.owner(("a",)) == "zoo"
