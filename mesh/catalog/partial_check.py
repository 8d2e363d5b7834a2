"""What can be said of a document that is partly wrong: all its faults, and its sense without them. Pure.

A schema stops at the shape: while one value is of a wrong type, pydantic gives no document back. Rules that
look across entities cannot run then, and people would learn of the next fault only after they have mended the
first. So what is faulty is taken out of a copy, until the rest has the right shape:

    a value with a default          is taken out: the rules see the default
    an entity in a mapping          becomes an empty one, so that what refers to it by name still finds it
    an item of a list, or a value   is taken out with what it belongs to, and so on upward
    that is required

Indexes of what is left in a list are not those that people see; `Partial.located` gives theirs.
"""

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mesh.catalog.documents import Location, problem_of
from mesh.errors import Problem

T = TypeVar("T")

ROUNDS_MAX = 12  # each takes out one level of nesting; ours has seven


@dataclass(frozen=True, slots=True)
class Partial(Generic[T]):
    """`value`: what is right, None where nothing is. `faulty`: the places that were taken out of it."""

    value: T | None
    problems: tuple[Problem, ...] = ()
    faulty: tuple[Location, ...] = ()
    _content: object = None
    _indexes: dict[int, list[int]] = field(default_factory=dict)  # id of a list → its items' first indexes

    def located(self, location: Location) -> Location:
        """A place in `value` → the same place in the document."""
        found: list[str | int] = []
        content: Any = self._content
        for part in location:
            if isinstance(part, int):
                found.append(self._indexes.get(id(content), range(part + 1))[part])
            else:
                found.append(part)
            try:
                content = content[part]
            except (KeyError, IndexError, TypeError):  # what a default has filled in
                content = None
        return tuple(found)

    def is_faulty(self, *location: str | int) -> bool:
        """Was something at this place, or below it, or the whole around it taken out?"""
        return any(one[: len(location)] == location[: len(one)] for one in self.faulty)


def check_partly(
    schema: type[T],
    document: object,
    blame: Callable[[Location], tuple[str, str]],
    *,
    emptied: Collection[str] = (),
    whole: Collection[str] = (),
) -> Partial[T]:
    """The document as a value of `schema`, as far as it has its shape.

    `emptied`: keys of mappings whose faulty entities become empty ones (None). `whole`: keys of lists whose
    items are taken out with any fault in them, because a default in its place would say something else.
    """
    try:
        return Partial(TypeAdapter(schema).validate_python(document))
    except ValidationError as error:
        faults = error.errors(include_url=False)
    problems = tuple(problem_of(schema, fault, blame) for fault in faults)
    pruning = _Pruning(deepcopy(document), emptied, whole)
    for _ in range(ROUNDS_MAX):
        if not pruning.take_out(faults):
            break
        try:
            value = TypeAdapter(schema).validate_python(pruning.content)
        except ValidationError as error:
            faults = error.errors(include_url=False)
        else:
            return Partial(value, problems, tuple(pruning.taken), pruning.content, pruning.indexes)
    return Partial(None, problems, ((),))


class _Pruning:
    """A copy of a document, of which faulty places are taken out."""

    def __init__(self, content: Any, emptied: Collection[str], whole: Collection[str]) -> None:
        self.content = content
        self.indexes: dict[int, list[int]] = {}
        self.taken: list[Location] = []
        self._emptied, self._whole = emptied, whole

    def take_out(self, faults: list[ErrorDetails]) -> bool:
        """False: the whole document is the fault."""
        places = {self._place(fault) for fault in faults}
        if () in places:
            return False
        # The last first, so that indexes of those before stay what they are.
        for place in sorted(places, key=_order, reverse=True):
            self._take(place)
        return True

    def _place(self, fault: ErrorDetails) -> Location:
        """What has to go."""
        location: Location = tuple(part for part in fault["loc"] if part != "[key]")
        if fault["type"] == "missing":
            location = location[:-1]
        for end, (key, index) in enumerate(pairwise(location), 2):
            if key in self._whole and isinstance(index, int):
                return location[:end]
        return location

    def _take(self, place: Location) -> None:
        holder: Any = self.content
        for part in place[:-1]:
            try:
                holder = holder[part]
            except (KeyError, IndexError, TypeError):
                return  # it went with what was around it
        last = place[-1]
        if isinstance(holder, list) and isinstance(last, int) and last < len(holder):
            indexes = self.indexes.setdefault(id(holder), list(range(len(holder))))
            self.taken.append((*place[:-1], indexes.pop(last)))
            del holder[last]
        elif isinstance(holder, dict) and last in holder:
            self.taken.append(place)
            if len(place) > 1 and place[-2] in self._emptied and holder[last] is not None:
                holder[last] = None
            else:
                del holder[last]


def _order(place: Location) -> tuple[tuple[int, int, str], ...]:
    """Places in the order of the document's lists; keys of mappings may come in any order."""
    return tuple((1, part, "") if isinstance(part, int) else (0, 0, part) for part in place)
