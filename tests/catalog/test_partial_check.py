"""All faults of a document at once: those of its shape, and those of its sense without what is misshapen."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.codec import parse
from mesh.errors import ConfigError

GOOD: dict[str, Any] = {
    "networks": {"front": {"subnet": "10.0.1.0/24"}, "back": {"subnet": "10.0.2.0/24"}},
    "services": {
        "web": {
            "networks": {"front": {"vip": "10.0.1.2"}},
            "ports": [{"published": 80, "target": 8080}, {"published": 443, "target": 8443}],
            "tasks": [
                {"name": "web.1.a", "addresses": {"front": "10.0.1.3"}},
                {"name": "web.2.b", "addresses": {"front": "10.0.1.4"}},
            ],
        },
        "api": {"networks": {"front": {}, "back": {}}, "ports": [{"published": 81, "target": 80}]},
    },
    "askers": [{"name": "tests", "source": "127.0.0.0/8", "networks": ["front"]}],
}


def keys(document: object) -> list[str]:
    """Of all faults, in alphabetical order."""
    try:
        parse(document, "catalog.yml")  # type: ignore[arg-type]
    except ConfigError as error:
        return sorted(problem.key for problem in error.problems)
    return []


def test_the_good_document_has_no_fault() -> None:
    assert keys(GOOD) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "{networks: {a: {subnet: nonsense}}, services: {x: {mode: vipp, networks: {zz: {}}}}}",
            ["networks.a.subnet", "services.x.mode", "services.x.networks.zz"],
        ),
        # An entity that is no mapping still has its name.
        (
            "{networks: {a: 5}, services: {x: {networks: {a: {}, b: {}}}}}",
            ["networks.a", "services.x.networks.b"],
        ),
        (
            "{networks: {a: {}}, services: {x: 7, y: {networks: {b: {}}}}}",
            ["services.x", "services.y.networks.b"],
        ),
        # A port of a wrong kind is no other port's: its default would be taken by two.
        (
            "{networks: {}, services: {x: {ports: [{published: 80, target: 1, protocol: udpp},"
            " {published: 80, target: 1}]}}}",
            ["services.x.ports[0].protocol"],
        ),
        # Indexes are those of the text.
        (
            "{networks: {}, services: {x: {ports: [{published: no, target: 1}, {published: 80, target: 1},"
            " {published: 80, target: 1}]}}}",
            ["services.x.ports[0].published", "services.x.ports[2].published"],
        ),
        (
            "{networks: {a: {subnet: 10.0.0.0/24}}, services: {x: {tasks: [{node: n},"
            " {name: x.1.b, addresses: {a: 11.0.0.1}}]}}}",
            ["services.x.tasks[0].name", "services.x.tasks[1].addresses.a"],
        ),
        # An unknown key hides nothing.
        (
            "{networks: {a: {subnets: 10.0.0.0/8}}, services: {x: {networks: {b: {}}}}}",
            ["networks.a.subnets", "services.x.networks.b"],
        ),
        # A key of a wrong kind, and what else is wrong.
        (
            "{networks: {a: {}, 5: {}}, services: {x: {networks: {b: {}}}}}",
            ["networks[5]", "services.x.networks.b"],
        ),
        # What is required and not there.
        (
            "{networks: {}, services: {}, askers: [{name: a, networks: [zz]},"
            " {name: b, source: x, networks: [yy]}]}",
            ["askers[0].source", "askers[1].networks[0]", "askers[1].source"],
        ),
        ("{services: {x: {mode: vipp}}}", ["networks", "services.x.mode"]),
        ("{networks: 5, services: {x: {mode: vipp}}}", ["networks", "services.x.mode"]),
    ],
)
def test_faults_of_shape_and_of_sense_are_named_together(text: str, named: list[str]) -> None:
    assert keys(yaml.safe_load(text)) == named


WRONG = st.sampled_from([None, 5, -1, "nonsense", [], [5], {}, {"x": 1}, True])


def places(document: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [here] if here else []
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in items:
        found += places(value, (*here, key))
    return found


def replaced(document: Any, place: tuple[str | int, ...], value: object) -> Any:
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[place[0]] = replaced(document[place[0]], place[1:], value)
    return copy


@given(st.sampled_from(places(GOOD)), WRONG)
def test_one_wrong_value_never_hides_a_fault_elsewhere(place: tuple[str | int, ...], value: object) -> None:
    """The subnet of `back` is nonsense, too: its fault is named whatever else is wrong."""
    faulty = replaced(GOOD, ("networks", "back", "subnet"), "nonsense")
    if place[:1] == ("networks",) and place[1:2] in ((), ("back",)):
        return  # it replaces the fault itself
    wrong = replaced(faulty, place, value)
    if place == ("services",) and not isinstance(value, dict):
        return  # nothing is left of the document but its shape
    assert "networks.back.subnet" in keys(wrong)
