"""Numbers and JSON from outside: a value or a ValueError that is short, whatever the text."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.parsing import (
    SHOWN_MAX,
    is_int,
    parse_duration,
    parse_float,
    parse_hex,
    parse_int,
    parse_json,
    parse_port,
)

LONG = "9" * 4301
OTHERS = ["", " 1", "1 ", "+1", "-1", "1_0", "²", "٣", "１", "0x10", "1.0", "1e3", "\n1", "1\n", LONG]


@pytest.mark.parametrize("text", OTHERS)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_only_ascii_digits_are_a_number(text: str, as_bytes: bool) -> None:
    value = text.encode() if as_bytes else text
    assert not is_int(value)
    with pytest.raises(ValueError) as raised:
        parse_int(value, 0, 10**30)
    assert len(str(raised.value)) < 2 * SHOWN_MAX + 100


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), (b"65535", 65535)])
def test_a_number_is_read(text: str | bytes, number: int) -> None:
    assert parse_int(text, 0, 65535) == number
    assert is_int(text)


def test_bounds_are_heeded() -> None:
    assert not is_int("0", 1)
    assert not is_int("65536", 1, 65535)
    for read in (lambda: parse_port("0"), lambda: parse_port("65536"), lambda: parse_hex("100", 0xFF)):
        with pytest.raises(ValueError):
            read()
    assert (parse_port("0", 0), parse_hex(b"fF", 0xFF)) == (0, 255)


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", LONG, f"0.{LONG}", "", "."])
def test_a_float_is_finite_and_short(text: str) -> None:
    with pytest.raises(ValueError):
        parse_float(text, -math.inf, math.inf)


@pytest.mark.parametrize("text", [LONG, f"{LONG}s", "1s" * 500, f"1.{LONG}s", "²s", "1 s", "-1s", "8d", "0"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_duration(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f'{{"a": {LONG}}}',
        f"-{LONG}",
        "1e999",
        "NaN",
        "Infinity",
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
        "{",
        "\x00",
    ],
)
def test_json_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    with pytest.raises(ValueError):
        parse_json(text.encode())


def test_json() -> None:
    assert parse_json('{"a": [1, -2.5, null, true, "x"]}') == {"a": [1, -2.5, None, True, "x"]}


@given(st.text() | st.from_regex(r"[0-9smh.]{1,30}"))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for read in (parse_port, parse_json, parse_duration, lambda one: parse_hex(one, 255)):
        with suppress(ValueError):
            read(text)
