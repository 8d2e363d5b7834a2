"""Parsers of single label values: what they take, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh.labels.values import (
    LIST_MAX,
    list_of,
    number,
    one_of,
    parse_count,
    parse_entry_points,
    parse_field_name,
    parse_field_value,
    parse_flag,
    parse_http_flag,
    parse_list,
    parse_middleware_names,
    parse_network,
    parse_path,
    parse_status_range,
    parse_statuses,
    parse_strict_flag,
    split_names,
    word,
)


@pytest.mark.parametrize(
    ("parse", "accepted", "refused"),
    [
        (parse_flag, "true TRUE 1 yes on", "t y 2"),
        (parse_http_flag, "true True 1 t T", "yes on 2"),
        (parse_strict_flag, "true 1", "t yes on"),
    ],
)
def test_each_flag_knows_its_own_words(parse: Callable[[str], bool], accepted: str, refused: str) -> None:
    assert all(map(parse, accepted.split()))
    for text in (*refused.split(), "", " true"):
        with pytest.raises(ValueError, match="neither true nor false"):
            parse(text)
    assert not parse("false")
    assert not parse("0")


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (number(1, 10), "10", 10),
        (parse_count, "0", 0),
        (one_of({"a": 1, "b": 2}), "B", 2),
        (word("v1", "v2"), "v2", "v2"),
        (split_names, " A ,,b,", ("a", "b")),
        (parse_list, "a, B", ("a", "B")),
        (list_of(number(0, 9)), "1,2", (1, 2)),
        (parse_entry_points, "Web, websecure", ("web", "websecure")),
        (parse_middleware_names, "A@swarm, b", ("a@swarm", "b")),
        (parse_field_name, "X-Key", "X-Key"),
        (parse_field_value, "a\tb", "a\tb"),
        (parse_path, "/a?b=c", "/a?b=c"),
        (parse_status_range, "500 - 503", (500, 503)),
        (parse_status_range, "404", (404, 404)),
        (parse_statuses, "429, 500-502", frozenset((429, 500, 501, 502))),
    ],
)
def test_a_value_is_parsed(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (number(1, 10), "11"),
        (number(1, 10), "1.0"),
        (parse_count, "00"),
        (parse_count, "-1"),
        (one_of({"a": 1}, any_case=False), "A"),
        (word("v1"), ""),
        (parse_list, " , "),
        (parse_list, "a," * (LIST_MAX + 1)),
        (list_of(number(0, 9)), "1,x"),
        (parse_entry_points, ","),
        (parse_middleware_names, "a,,b"),
        (parse_middleware_names, ""),
        (parse_field_name, "a b"),
        (parse_field_value, "a\r\nb"),
        (parse_path, "a"),
        (parse_path, "/a b"),
        (parse_path, "/ä"),
        (parse_status_range, "199"),
        (parse_status_range, "600"),
        (parse_status_range, "503-500"),
        (parse_status_range, "500-"),
        (parse_statuses, "500,"),
        (parse_network, "10.0.0.0/33"),
    ],
)
def test_another_value_is_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_the_bits_behind_a_prefix_do_not_matter() -> None:
    assert parse_network("10.1.2.3/8") == parse_network("10.0.0.0/8")
