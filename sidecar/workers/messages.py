"""A message as bytes, and back. Pure.

A message is a value of one of a fixed set of dataclasses. On the wire it is the name of its class, a line
feed, and its fields as JSON. Reading checks every field against its type, strictly; nothing of what is read
is run or looked up by name outside the set. What a *restricted* process says has types with bounds: see
`Count`, `Seconds` and `Text`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mesh.errors import WireError

SHOWN_MAX = 300  # characters of an error that are quoted: its words may be the peer's

# Bounds for what a restricted process says. 2**63 bytes are 200 years of 10 Gbit/s.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=256)]  # TEXT_MAX
Number = Annotated[int, Field(ge=0, lt=2**31)]


PLACES_MAX, PROBLEMS_MAX = 64, 32  # that a process tells of at once
TEXT_MAX = 256  # characters
QUARANTINED_MAX = 1024  # entries of the catalogue that a process may say it leaves out: 80 KB


@dataclass(frozen=True, slots=True)
class Faults:
    """Of ours, in the process that says so: every process may. Counts are since its start."""

    counts: Annotated[dict[Text, Count], Field(max_length=PLACES_MAX)]
    problems: Annotated[tuple[Text, ...], Field(max_length=PROBLEMS_MAX)]
    # Subscriber, kind and id of what its copy of the catalogue lacks.
    quarantined: Annotated[tuple[tuple[Text, Text, Text], ...], Field(max_length=QUARANTINED_MAX)] = ()


class Messages:
    """The messages that one side may send to the other. `Faults` is always one of them."""

    def __init__(self, kinds: Iterable[type[Any]]) -> None:
        self._by_name: dict[bytes, TypeAdapter[Any]] = {
            kind.__name__.encode(): TypeAdapter(kind) for kind in (*kinds, Faults)
        }

    def encode(self, message: object) -> bytes:
        name = type(message).__name__.encode()
        return name + b"\n" + self._by_name[name].dump_json(message)

    def decode(self, body: bytes) -> object:
        """Raises WireError, which names the message and the first field that does not fit."""
        name, _, fields = body.partition(b"\n")
        adapter = self._by_name.get(name)
        if adapter is None:
            raise WireError(f"no message is called {name[:40]!r}")
        try:
            return adapter.validate_json(fields, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise WireError(f"{name.decode()}: {where}: {first['msg']}"[:SHOWN_MAX]) from error
