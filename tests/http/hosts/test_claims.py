"""The areas that routers' rules claim."""

import pytest

from mesh.http.config.matchers import PathKey
from mesh.http.config.rule_parser import read_rule
from mesh.http.hosts.claims import AREAS_MAX, Breadth, areas_of, covers, tcp_area_of


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
def test_a_rule_claims_the_hosts_and_paths_that_it_names(rule: str, keys: list[str]) -> None:
    assert [area.key for area in areas_of(read_rule(rule))] == keys


def test_an_expression_claims_some_hosts() -> None:
    (area,) = areas_of(read_rule("HostRegexp(`^[a-z]+\\.tenants\\.example$`)"))
    assert (area.breadth, area.fits) == (Breadth.SOME, ("^[a-z]+\\.tenants\\.example$",))
    assert area.group.startswith("~")


def test_a_rule_with_too_many_areas_claims_its_hosts() -> None:
    hosts = " || ".join(f"Host(`h{one}`)" for one in range(60))
    paths = " || ".join(f"Path(`/{one}`)" for one in range(60))
    found = areas_of(read_rule(f"({hosts}) && ({paths})"))
    assert len(found) == 60 <= AREAS_MAX
    assert {area.path for area in found} == {None}


def test_a_prefix_covers_longer_paths_and_an_exact_path_only_itself() -> None:
    api, under, exact = PathKey("/api", False), PathKey("/api/x", False), PathKey("/api/x", True)
    assert covers(None, api)
    assert not covers(api, None)
    assert covers(api, under)
    assert covers(under, exact)
    assert not covers(exact, under)
    assert covers(exact, exact)


def test_a_name_for_passthrough_claims_all_of_its_host() -> None:
    assert tcp_area_of("a.example").key == "tls a.example"
    assert tcp_area_of("*.a.example").breadth is Breadth.SOME
    assert tcp_area_of("*").key == "tls *"
