"""YAML text → document: what PyYAML lets pass is refused, plain words stay what their author wrote."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.documents import dotted, read_yaml, suggestion
from mesh.errors import ConfigError


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "f.yml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("capture: off", "off"),
        ("capture: yes", "yes"),
        ("listen: 10:53", "10:53"),
        ("day: 2026-01-02", "2026-01-02"),
        ("port: 010", 10),
        ("on: true", True),
        ("ratio: 0.5", 0.5),
        ("nothing:", None),
    ],
)
def test_plain_words_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert list(read_yaml(text, "f").values()) == [value]


def test_an_empty_text_is_an_empty_document() -> None:
    assert read_yaml("# nothing\n", "f") == {}


def test_every_duplicate_key_is_named_with_its_lines() -> None:
    text = "a: 1\nb: {x: 1, x: 2}\nc:\n  - y: 1\n    y: 2\na: 3\n"
    assert problems(text) == [
        "f.yml: a: is given twice, in lines 1 and 6",
        "f.yml: b.x: is given twice, in lines 2 and 2",
        "f.yml: c[0].y: is given twice, in lines 4 and 5",
    ]


def test_merge_keys_may_be_overridden() -> None:
    text = "base: &base {x: 1, y: 1}\nmid: &mid {<<: *base, x: 2}\ntop: {<<: *mid, x: 3}\n"
    assert read_yaml(text, "f")["top"] == {"x": 3, "y": 1}


@pytest.mark.parametrize(
    "text", ["a: [1, 2", "a: b: c", "\ta: 1", "a: !!python/object:os.system x", "a: \x00"]
)
def test_what_is_not_yaml_is_one_problem(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("f.yml: is not valid YAML")


def test_a_list_is_no_document() -> None:
    assert problems("- a") == ["f.yml: must be a mapping of keys, not a list"]


def test_deep_nesting_is_refused() -> None:
    assert problems("a: " + "[" * 100_000)


@given(st.text(max_size=60))
def test_any_text_is_a_document_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        assert isinstance(read_yaml(text, "f"), dict)


def test_keys_are_dotted_and_words_suggested() -> None:
    assert dotted(("services", "web", "ports", 0, "published")) == "services.web.ports[0].published"
    assert suggestion("subnett", ["subnet", "driver"]) == "; did you mean 'subnet'?"
    assert suggestion("qq", ["subnet"]) == ""
