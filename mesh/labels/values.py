"""Parsers of single label values, the one set for all packages. Pure.

Each takes the text of a label and returns the value, or raises ValueError with a message that quotes the
text. Parsers that need bounds or a vocabulary are made by a function: `number(1, 10)`, `one_of(...)`.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from mesh.parsing import PORT_MAX, parse_int, shown

T = TypeVar("T")
IpNetwork = IPv4Network | IPv6Network

LIST_MAX = 256  # entries of a list in a label
NUMBER_MAX = 10**9  # of any number in a label
STATUS_MIN, STATUS_MAX = 200, 599  # of a final response

FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")  # RFC 9110 section 5.1
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4096}")  # RFC 9110 section 5.5


# --- flags, numbers, words ---


def flag(true: str, false: str) -> Callable[[str], bool]:
    """A parser of booleans that knows these words (separated by spaces), in any case."""
    known = dict.fromkeys(true.split(), True) | dict.fromkeys(false.split(), False)

    def parse(text: str) -> bool:
        if (value := known.get(text.lower())) is None:
            raise ValueError(f"{shown(text)} is neither true nor false")
        return value

    return parse


parse_flag = flag("true 1 yes on", "false 0 no off")  # of `mesh.enable`
parse_http_flag = flag("true 1 t", "false 0 f")  # of routers and services, as Traefik reads them
parse_strict_flag = flag("true 1", "false 0")  # of middlewares and TCP routers


def number(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""
    return lambda text: parse_int(text, least, most)


parse_positive = number(1, NUMBER_MAX)
parse_port_number = number(1, PORT_MAX)
parse_percent = number(0, 100)


def parse_count(text: str) -> int:
    """A whole number from 0 to NUMBER_MAX."""
    return 0 if text == "0" else parse_positive(text)


def one_of(known: Mapping[str, T], *, any_case: bool = True) -> Callable[[str], T]:
    """A parser of the keys of `known`, which it turns into their values. `any_case`: the keys are lower case,
    the text need not be."""

    def parse(text: str) -> T:
        word = text.lower() if any_case else text
        if word not in known:
            raise ValueError(f"{shown(text)} is not one of {', '.join(known)}")
        return known[word]

    return parse


def word(*allowed: str) -> Callable[[str], str]:
    """A parser of these words, in this case."""
    return one_of({one: one for one in allowed}, any_case=False)


# --- lists by commas ---


def split_words(text: str) -> tuple[str, ...]:
    """The entries of a list, without the empty ones."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def split_names(text: str) -> tuple[str, ...]:
    """The entries of a list in lower case, without the empty ones."""
    return split_words(text.lower())


def parse_list(text: str) -> tuple[str, ...]:
    """From 1 to LIST_MAX entries."""
    found = split_words(text)
    if not found or len(found) > LIST_MAX:
        raise ValueError(f"{len(found)} entries are not from 1 to {LIST_MAX}")
    return found


def list_of(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A parser of lists whose entries `parse` reads."""
    return lambda text: tuple(map(parse, parse_list(text)))


def parse_network(text: str) -> IpNetwork:
    """A CIDR or an address; bits beyond the prefix are dropped."""
    return ip_network(text, strict=False)


def parse_entry_points(text: str) -> tuple[str, ...]:
    """Names of entry points. An empty list is refused: a router that names none is served at all of them."""
    if not (names := split_names(text)):
        raise ValueError("names no entry point (an unset variable?)")
    return names


def parse_middleware_names(text: str) -> tuple[str, ...]:
    """Names of middlewares. An empty one among them is a guard that somebody meant to be there."""
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(names):
        raise ValueError("has an empty name among its middlewares (an unset variable?)")
    if len(names) > LIST_MAX:
        raise ValueError(f"{len(names)} entries are more than {LIST_MAX}")
    return names


# --- what stands in HTTP messages ---


def parse_field_name(text: str) -> str:
    """The name of a header field."""
    if FIELD_NAME.fullmatch(text) is None:
        raise ValueError(f"{shown(text)} is no name of a field")
    return text


def parse_field_value(text: str) -> str:
    """The value of a header field, or any text that may become a part of one."""
    if FIELD_VALUE.fullmatch(text) is None:
        raise ValueError("has bytes that no field may have")
    return text


def parse_path(text: str) -> str:
    """A path, perhaps with a query, that can stand in a request line."""
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{shown(text)} is no path")
    return text


def parse_status_range(text: str) -> tuple[int, int]:
    """`404` or `500-503`: the first and the last status."""
    low, dash, high = text.partition("-")
    found = (parse_positive(low.strip()), parse_positive((high if dash else low).strip()))
    if not STATUS_MIN <= found[0] <= found[1] <= STATUS_MAX:
        raise ValueError(f"{shown(text)} is no status, or range of them, from {STATUS_MIN} to {STATUS_MAX}")
    return found


def parse_statuses(text: str) -> frozenset[int]:
    """Statuses and ranges of them by commas: `500,502-504,429`."""
    ranges = (parse_status_range(part.strip()) for part in text.split(","))
    return frozenset(status for low, high in ranges for status in range(low, high + 1))
