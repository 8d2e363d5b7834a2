"""What a service's labels say about its names, with every fault named.

A bad label never breaks a service: its default applies, and `problems` reports it.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from mesh.catalog.model import Protocol, Service
from mesh.errors import Problem
from mesh.parsing import PORT_MAX, is_int, parse_duration, parse_port, shown

T = TypeVar("T")

PREFIX = "mesh.dns."
TTL = "mesh.dns.ttl"
SRV = "mesh.dns.srv."  # and the name of a port
TTL_MAX = 86_400  # seconds: longer only makes stale names

_PORT = re.compile(r"([1-9]\d{0,4})(?:/(tcp|udp|sctp))?", re.ASCII)
_PORT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,60}[a-z0-9])?", re.ASCII)  # a label with the `_` before it


def ttl_of(service: Service) -> int | None:
    """Seconds for which answers about the service may be kept; None where it does not say, or wrongly."""
    return _or_none(_ttl, service.labels.get(TTL))


def labelled_ports(service: Service, name: str, protocol: str) -> tuple[int, ...]:
    """The ports inside its tasks that the service's labels call by this name."""
    ports = _or_none(_ports, service.labels.get(SRV + name)) or ()
    return tuple(number for number, transport in ports if transport == protocol)


def problems(service: Service) -> tuple[Problem, ...]:
    """`file` is the service's name, `key` the label."""
    return tuple(_problems(service)) if service.enabled else ()


def _problems(service: Service) -> Iterator[Problem]:
    for key, text in sorted(service.labels.items()):
        try:
            if key == TTL:
                _ttl(text)
            elif key.startswith(SRV):
                _port_name(key.removeprefix(SRV))
                _ports(text)
            elif key.startswith(PREFIX):
                yield Problem(service.name, key, f"unknown label, known are {TTL} and {SRV}NAME; ignored")
        except ValueError as error:
            used = "dns.ttl is used" if key == TTL else "ignored"
            yield Problem(service.name, key, f"{error}; {used}")


def _or_none(parse: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else parse(text)
    except ValueError:
        return None


def _ttl(text: str) -> int:
    text = text.strip()
    seconds = 0.0 if text == "0" else parse_duration(text)
    if seconds % 1 or seconds > TTL_MAX:
        raise ValueError(f"{shown(text)} is not a number of whole seconds up to a day, like 30, 30s or 5m")
    return int(seconds)


def _ports(text: str) -> tuple[tuple[int, Protocol], ...]:
    return tuple(_port(one.strip()) for one in text.split(","))


def _port(text: str) -> tuple[int, Protocol]:
    found = _PORT.fullmatch(text)
    if found is None or not is_int(found[1], 1, PORT_MAX):
        raise ValueError(f"{shown(text)} is not a port like 8080 or 53/udp")
    return parse_port(found[1]), Protocol(found[2] or "tcp")


def _port_name(text: str) -> None:
    if not _PORT_NAME.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a name of lower-case letters, digits and hyphens")
