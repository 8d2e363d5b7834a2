"""What a service's labels say about its names, with every fault named.

A bad label never breaks a service: its default applies, and `problems` reports it.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from mesh.catalog.model import Protocol, Service
from mesh.errors import Problem
from mesh.labels.reader import LabelReader
from mesh.parsing import PORT_MAX, is_int, parse_duration, parse_port, shown

T = TypeVar("T")

PREFIX = "mesh.dns."
TTL = "mesh.dns.ttl"
SRV = "mesh.dns.srv."  # and the name of a port
TTL_MAX = 86_400  # seconds: longer only makes stale names

_PORT = re.compile(r"([1-9]\d{0,4})(?:/(tcp|udp|sctp))?", re.ASCII)
_PORT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,60}[a-z0-9])?", re.ASCII)  # a label with the `_` before it


def ttl_of(service: Service) -> int | None:
    """The TTL of answers about the service, in seconds; None without the label, or if it cannot be read."""
    return _or_none(_parse_ttl, service.labels.get(TTL))


def labelled_ports(service: Service, name: str, protocol: str) -> tuple[int, ...]:
    """The ports inside tasks to which the service's labels give this name."""
    ports = _or_none(_parse_ports, service.labels.get(SRV + name)) or ()
    return tuple(number for number, transport in ports if transport == protocol)


def problems(service: Service) -> tuple[Problem, ...]:
    """`file` is the service's name, `key` the label."""
    reader = LabelReader(service.name, service.labels)
    for key, text in sorted(service.labels.items()) if service.enabled else ():
        if key == TTL:
            reader.parse(key, text, _parse_ttl, "dns.ttl is used")
        elif key.startswith(SRV):
            if reader.parse(key, key.removeprefix(SRV), _parse_port_name) is not None:
                reader.parse(key, text, _parse_ports)
        elif key.startswith(PREFIX):
            reader.fault(key, f"unknown label, known are {TTL} and {SRV}NAME; ignored")
    return tuple(reader.problems)


def _or_none(parse: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else parse(text)
    except ValueError:
        return None


def _parse_ttl(text: str) -> int:
    text = text.strip()
    seconds = 0.0 if text == "0" else parse_duration(text)
    if seconds % 1 or seconds > TTL_MAX:
        raise ValueError(f"{shown(text)} is not a number of whole seconds up to a day, like 30, 30s or 5m")
    return int(seconds)


def _parse_ports(text: str) -> tuple[tuple[int, Protocol], ...]:
    return tuple(_parse_port_and_protocol(one.strip()) for one in text.split(","))


def _parse_port_and_protocol(text: str) -> tuple[int, Protocol]:
    found = _PORT.fullmatch(text)
    if found is None or not is_int(found[1], 1, PORT_MAX):
        raise ValueError(f"{shown(text)} is not a port like 8080 or 53/udp")
    return parse_port(found[1]), Protocol(found[2] or "tcp")


def _parse_port_name(text: str) -> str:
    if not _PORT_NAME.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a name of lower-case letters, digits and hyphens")
    return text
