"""Numbers and JSON that come from outside, read with bounds. The one place that does it. Pure.

Python's own readers are wider than any protocol: `int` takes other scripts' digits, underscores, signs and
spaces, and raises for more than 4,300 digits; `float` takes `nan` and `inf`; `json.loads` raises ValueError
or RecursionError by the document. Every reader here raises ValueError alone, with a message that quotes
`SHOWN_MAX` characters at most, so that no text can fill a log or a status page.
"""

import json
import math
import re
from collections.abc import Callable
from typing import TypeVar

DIGITS_MAX = 19  # of a whole number: 2^63 has as many
SHOWN_MAX = 60  # characters of a text that a message quotes
PORT_MAX = 65_535
DURATION_MAX = 7 * 24 * 3600.0  # seconds; longer than anything here waits

_HEX_DIGITS = re.compile(rf"[0-9A-Fa-f]{{1,{DIGITS_MAX}}}")
_NUMBER = re.compile(rf"[+-]?[0-9]{{1,{DIGITS_MAX}}}(?:\.[0-9]{{1,{DIGITS_MAX}}})?")
_DURATION = re.compile(rf"([0-9]{{1,{DIGITS_MAX}}}(?:\.[0-9]{{1,{DIGITS_MAX}}})?)(ms|s|m|h|)")
_DURATION_PARTS_MAX = 4  # 1h30m15s250ms
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}

T = TypeVar("T")


def shown(text: str | bytes) -> str:
    """The text, quoted for a message, its beginning if it is long."""
    return repr(text) if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]!r}…"


def parse_int(text: str | bytes, least: int, most: int) -> int:
    """A whole number in ASCII digits. ValueError when it is none, or not between `least` and `most`."""
    # Not an expression's work, which takes four times as long: heads of requests and responses have numbers.
    if (
        len(text) <= DIGITS_MAX
        and text.isdigit()
        and text.isascii()
        and least <= (number := int(text)) <= most
    ):
        return number
    raise ValueError(f"{shown(text)} is no number from {least} to {most}")


def parse_hex(text: str | bytes, most: int) -> int:
    """A whole number in hexadecimal digits, from 0. ValueError when it is none, or more than `most`."""
    number = _matched(_HEX_DIGITS, text, lambda digits: int(digits, 16))
    if number is None or number > most:
        raise ValueError(f"{shown(text)} is no hexadecimal number up to {most:x}")
    return number


def parse_float(text: str | bytes, least: float, most: float) -> float:
    """A decimal number without an exponent. ValueError as for `parse_int`."""
    number = _matched(_NUMBER, text, float)
    if number is None or not least <= number <= most:
        raise ValueError(f"{shown(text)} is no number from {least:g} to {most:g}")
    return number


def parse_port(text: str | bytes, least: int = 1) -> int:
    """ValueError when it is no port's number."""
    return parse_int(text, least, PORT_MAX)


def parse_duration(text: str) -> float:
    """Seconds in `30s`, `5m`, `1h30m`, `250ms` or a bare number of seconds. ValueError says what is wrong."""
    parts = _DURATION.findall(text) if len(text) <= _DURATION_PARTS_MAX * 2 * DIGITS_MAX else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{shown(text)} is not a time like 30s, 5m or 250ms")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= DURATION_MAX:
        raise ValueError(f"{shown(text)} is not between 0 and 7 days")
    return seconds


def is_int(text: str | bytes, least: int = 0, most: int = 10**DIGITS_MAX) -> bool:
    """Would `parse_int` take it?"""
    return len(text) <= DIGITS_MAX and text.isdigit() and text.isascii() and least <= int(text) <= most


def parse_json(data: str | bytes) -> object:
    """The document. ValueError when it is none: not JSON, nested too deep, a number that is not finite or
    has too many digits."""
    try:
        return json.loads(data, parse_int=_json_int, parse_float=_json_float, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None


def _matched(pattern: re.Pattern[str], text: str | bytes, read: Callable[[str], T]) -> T | None:
    if isinstance(text, bytes):
        text = text[: 3 * DIGITS_MAX].decode("latin-1")
    return read(text) if pattern.fullmatch(text) else None


def _json_int(text: str) -> int:
    if len(text) > DIGITS_MAX + 1:  # and a sign
        raise ValueError(f"the JSON has a number of {len(text)} digits")
    return int(text)


def _json_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("the JSON has a number that is not finite")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
