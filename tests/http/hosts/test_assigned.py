"""Hosts, and path prefixes of them, that the configuration assigns to stacks."""

import pytest

from mesh.http.hosts.assigned import NOBODY, AssignedHosts, pattern


def test_the_most_specific_pattern_decides() -> None:
    hosts = AssignedHosts({"zoo": ("a.example", "*.zoo.example"), "ape": ("ape.zoo.example",), "all": ("*",)})
    assert [hosts(one) for one in ("a.example", "x.y.zoo.example", "ape.zoo.example", "zoo.example")] == [
        "zoo",
        "zoo",
        "ape",
        "all",
    ]


def test_the_longest_assigned_prefix_of_a_host_comes_first() -> None:
    hosts = AssignedHosts({"api": ("*.b/api",), "zoo": ("x.b/api", "*/z")})
    assert hosts.parts("x.b") == [("/api", "zoo"), ("/z", "zoo")]
    assert hosts.parts("y.b") == [("/api", "api"), ("/z", "zoo")]
    long = AssignedHosts({"api": ("a/x",), "zoo": ("a/x/y",)})
    assert long.parts("a") == [("/x/y", "zoo"), ("/x", "api")]


def test_a_prefix_does_not_assign_the_rest_of_its_host() -> None:
    assert AssignedHosts({"api": ("a/api",)})("a") is None


def test_nothing_is_assigned_without_configuration() -> None:
    assert (NOBODY("a"), NOBODY.parts("a")) == (None, [])


def test_a_pattern_has_a_normal_form() -> None:
    assert pattern("Shop.example./API") == "shop.example/API"
    assert pattern("shop.example/") == "shop.example"


@pytest.mark.parametrize("text", ["a b", "", "*.*.x", "a/b c", "/b", "*x", "a..b", "x" * 300])
def test_other_texts_are_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="must be a host"):
        pattern(text)
