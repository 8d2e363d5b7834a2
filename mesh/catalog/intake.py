"""What may enter the catalogue: entities whose fields are what their types say. Pure.

Docker's JSON, a manager's feed and a saved view become entities in different places, and what stands in them
comes from outside in the end. A port of -1, an address `x` or a name that is a number would raise somewhere
behind, in each part in another way. So each entity is looked at once, here; one that can't be is left out and
named, until its data changes. Of a node only what it says of its return path is left out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache, lru_cache
from ipaddress import AddressValueError, IPv4Address, ip_address, ip_network
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mesh.catalog.model import NO_RETURN_PATH, Container, Neighbour, Network, Node, ReturnPath, Service, Task
from mesh.catalog.snapshot import Change
from mesh.errors import Problem
from mesh.parsing import PORT_MAX, shown

NUMBER_MAX = 2**63 - 1  # of any number, either way; Docker counts in an int64
STRING_MAX = 1 << 20  # characters of one string; Docker takes a service's labels of 1 MB or so
REFUSED_MAX = 1024  # entities whose faults are remembered

Key = tuple[str, str]  # field of a Change, id
Check = Callable[[Any], str]  # what is wrong, in words; "" if nothing is


def fault_of(entity: Any) -> str:
    """What is wrong with an entity of the catalogue; "" if it can be used."""
    kind: Any = type(entity)
    fault = _check_of(kind)(entity)
    if fault:
        return fault
    more = _SENSE.get(kind)
    return more(entity) if more is not None else ""


def sound(entity: Any) -> tuple[Any, str]:
    """As much of it as can be used (None: nothing), and what is wrong with the rest."""
    fault = fault_of(entity)
    if fault and isinstance(entity, Node):
        without = replace(entity, return_path=NO_RETURN_PATH)
        return (without if not fault_of(without) else None), fault
    return (None if fault else entity), fault


class Intake:
    """Looks at every change on its way into the catalogue."""

    def __init__(self) -> None:
        self._refused: dict[Key, Problem] = {}

    @property
    def refused(self) -> int:
        """Entities that are left out now."""
        return len(self._refused)

    def problems(self) -> Iterator[Problem]:
        yield from self._refused.values()

    def admit(self, change: Change) -> tuple[Change, list[Problem]]:
        """The change without what can't be used, and what is newly refused of it."""
        news: list[Problem] = []
        found: dict[str, Any] = {}
        for one in fields(change):
            if one.name != "askers":
                entities = getattr(change, one.name)
                admitted = self._admit(one.name, entities, news) if entities else entities
                if admitted is not entities:
                    found[one.name] = admitted
        return (replace(change, **found) if found else change), news

    def _admit(self, kind: str, entities: Mapping[str, Any], news: list[Problem]) -> Mapping[str, Any]:
        faulty: dict[str, Any] = {}
        for id_, entity in entities.items():
            usable, fault = (None, "") if entity is None else sound(entity)
            if not fault:
                self._refused.pop((kind, id_), None)
                continue
            faulty[id_] = usable
            problem = Problem(f"{kind.removesuffix('s')} {_name(entity, id_)}", "", f"{fault}; left out")
            if self._refused.get((kind, id_)) != problem:
                news.append(problem)
            if len(self._refused) < REFUSED_MAX:
                self._refused[kind, id_] = problem
        return {**entities, **faulty} if faulty else entities


def _name(entity: object, id_: str) -> str:
    name = getattr(entity, "name", "")
    return (name if isinstance(name, str) and name else str(id_))[:64]


# --- types --------------------------------------------------------------------------------------------------


@cache
def _check_of(hint: Any) -> Check:
    """The check for a field's type: made once for each type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return _of_dataclass(hint)
    if origin in (UnionType, Union):
        checks = [_check_of(one) for one in arguments if one is not NoneType]
        return lambda value: "" if value is None else checks[0](value)
    if origin is tuple:
        return _of_tuple(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _of_mapping(_check_of(arguments[0]), _check_of(arguments[1]))
    return _PLAIN[hint] if hint in _PLAIN else _of_class(hint)


def _of_dataclass(kind: type) -> Check:
    hints = get_type_hints(kind)
    checks = [(one.name, _check_of(hints[one.name])) for one in fields(kind)]

    def check(value: Any) -> str:
        if not isinstance(value, kind):
            return f"is no {kind.__name__.lower()}"
        for name, of_field in checks:
            if fault := of_field(getattr(value, name)):
                return f"{name} {fault}"
        return ""

    return check


def _of_tuple(arguments: tuple[Any, ...]) -> Check:
    alike = len(arguments) == 2 and arguments[1] is Ellipsis
    checks = [_check_of(one) for one in arguments if one is not Ellipsis]

    def check(value: Any) -> str:
        if not isinstance(value, tuple) or not (alike or len(value) == len(checks)):
            return "is no list"
        for number, one in enumerate(value):
            if fault := checks[0 if alike else number](one):
                return fault
        return ""

    return check


def _of_mapping(key: Check, value: Check) -> Check:
    def check(found: Any) -> str:
        if not isinstance(found, Mapping):
            return "is no mapping"
        for name, one in found.items():
            if fault := key(name) or value(one):
                return fault
        return ""

    return check


def _of_class(kind: type) -> Check:
    assert issubclass(kind, Enum), kind
    return lambda value: "" if isinstance(value, kind) else f"{shown(repr(value))} is no {kind.__name__}"


def _text(value: Any) -> str:
    if type(value) is not str:
        return f"{shown(repr(value))} is no text"
    if value.isascii():
        return "has a NUL character" if "\0" in value else "is too long" if len(value) > STRING_MAX else ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{shown(ascii(value))} cannot be written in UTF-8"
    return "has a NUL character" if "\0" in value else "is too long" if len(value) > STRING_MAX else ""


def _number(value: Any) -> str:
    if type(value) is not int or abs(value) > NUMBER_MAX:
        return f"{_shown_number(value)} is no number that can be counted with"
    return ""


def _real(value: Any) -> str:
    if type(value) not in (int, float) or not abs(value) <= NUMBER_MAX:  # NaN is not, either
        return f"{_shown_number(value)} is no number that can be counted with"
    return ""


def _shown_number(value: Any) -> str:
    """The text of a number of thousands of digits can't be had."""
    return "it" if type(value) is int and value.bit_length() > 256 else shown(repr(value))


def _switch(value: Any) -> str:
    return "" if type(value) is bool else f"{shown(repr(value))} is neither true nor false"


_PLAIN: dict[Any, Check] = {str: _text, int: _number, float: _real, bool: _switch}


# --- sense --------------------------------------------------------------------------------------------------


def _of_service(service: Service) -> str:
    for port in service.ports:
        if not (0 <= port.published <= PORT_MAX and 0 <= port.target <= PORT_MAX):
            return f"port {port.published}:{port.target} is none"
    for member in service.networks:
        if member.vip is not None and not _is_ip4(member.vip):
            return f"virtual IP {shown(member.vip)} is no IPv4 address"
    return next((fault for task in service.tasks if (fault := _of_task(task))), "")


def _of_task(task: Task) -> str:
    wrong = next((one for one in task.addresses.values() if not _is_ip4(one)), None)
    return "" if wrong is None else f"task {task.name}: {shown(wrong)} is no IPv4 address"


def _of_network(network: Network) -> str:
    for subnet in network.subnets:
        try:
            ip_network(subnet, strict=False)
        except ValueError:
            return f"subnet {shown(subnet)} is none"
    return ""


def _of_node(node: Node) -> str:
    return _of_return_path(node.return_path)


def _of_return_path(said: ReturnPath) -> str:
    every = (*said.entries, *said.tasks, *((said.entry,) if said.entry else ()))
    wrong = next((one for one in every if not _is_ip4(one)), None)
    return "" if wrong is None else f"return path: {shown(wrong)} is no IPv4 address"


def _of_container(one: Container | Neighbour) -> str:
    for attachment in one.attachments:
        for address in (attachment.address, attachment.address6):
            if address and not _is_ip(address):
                return f"address {shown(address)} is none"
    return ""


@lru_cache(65_536)  # the same few addresses come with every change of their service
def _is_ip4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ip(text: str) -> bool:
    try:
        ip_address(text.partition("/")[0])
    except ValueError:
        return False
    return True


_SENSE: dict[type, Check] = {
    Service: _of_service,
    Network: _of_network,
    Node: _of_node,
    Container: _of_container,
    Neighbour: _of_container,
}
