"""From text to a checked document, with every fault named at its place.

Strategy: two steps that each collect instead of stopping. YAML is read by a loader that refuses what PyYAML
lets pass (a key given twice) and knows only YAML 1.2's plain words, so that `capture: off` and
`listen: 10:53` stay the text that their author wrote. Then a pydantic schema checks the shape
(`partial_check`), and its errors become `Problem`s in our own words with the nearest known key.
"""

import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import yaml
from pydantic_core import ErrorDetails

from mesh.errors import ConfigError, Problem
from mesh.parsing import parse_int

try:  # libyaml's parser is ten times as fast; a large catalogue is read while the loop waits
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

T = TypeVar("T")
Location = tuple[str | int, ...]

MAX_SHOWN = 60  # characters of a wrong value repeated in a message: enough to find it, no more
MAX_DEPTH = 50  # nested mappings and lists: ours need 6, and the C stack bears no more than some thousands


def read_yaml(text: str, file: str) -> dict[str, Any]:
    """The document's top mapping ({} when empty). Raises ConfigError for syntax and for duplicate keys."""
    try:
        document, problems = _load(text, file)
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file, "", _syntax_message(error))]) from error
    except ValueError as error:  # a number longer than Python converts
        raise ConfigError([Problem(file, "", f"is not valid YAML: {error}")]) from error
    if not isinstance(document, dict | None):
        problems.append(Problem(file, "", f"must be a mapping of keys, not {kind_of(document)}"))
    if problems:
        raise ConfigError(problems)
    return typing.cast(dict[str, Any], document or {})


def dotted(location: Location) -> str:
    """services.web.ports[0].published"""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part != "[key]":  # pydantic's mark for "the key itself is wrong"
            key += f".{part}" if key else part
    return key


def suggestion(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or "" when nothing known is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def kind_of(value: object) -> str:
    """What a YAML value is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "…"


NUMBER_MAX = 2**63  # of a document; what is counted anywhere is less

# --- YAML ---------------------------------------------------------------------------------------------------

_PLAIN_WORDS = (  # YAML 1.2 core schema: no on/off/yes/no, no sexagesimal numbers, no dates
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"^[-+]?[0-9]+\.[0-9]+$", "-+0123456789"),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
)


class _Loader(SafeLoader):
    """The hooks run once per node, on its way in and out: where depth can be known before the stack is
    (libyaml's composer recurses in C, without a guard of its own)."""

    depth = 0

    def descend_resolver(self, current_node: object, current_index: object) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Decimal; YAML 1.1 would read 010 as octal."""
        sign = -1 if node.value.startswith("-") else 1
        try:
            return sign * parse_int(node.value.lstrip("+-"), 0, NUMBER_MAX)
        except ValueError as error:
            raise yaml.YAMLError(str(error)) from error


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _PLAIN_WORDS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _load(text: str, file: str) -> tuple[object, list[Problem]]:
    """The document, and its duplicate keys: looked for before merge keys (`<<`) are worked in."""
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is None:
        return None, []
    problems = [p for location, node in _mappings(root) for p in _duplicates(node, location, file)]
    return loader.construct_document(root), problems


def _mappings(root: yaml.Node) -> Iterator[tuple[Location, yaml.MappingNode]]:
    """Every mapping under the root, once, in the order of the text."""
    waiting: list[tuple[Location, yaml.Node]] = [((), root)]
    seen = set[int]()
    while waiting:
        location, node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield location, node
            waiting.extend(((*location, str(key.value)), value) for key, value in reversed(node.value))
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(((*location, i), v) for i, v in reversed(list(enumerate(node.value))))


def _duplicates(node: yaml.MappingNode, location: Location, file: str) -> Iterator[Problem]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            where = dotted((*location, key.value))
            yield Problem(file, where, f"is given twice, in lines {lines[key.value]} and {line}")
        lines.setdefault(key.value, line)


def _syntax_message(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    where = f", line {mark.line + 1} column {mark.column + 1}" if mark else ""
    return f"is not valid YAML{where}: {what}"


# --- pydantic's errors in our words -------------------------------------------------------------------------


def problem_of(schema: type, error: ErrorDetails, blame: Callable[[Location], tuple[str, str]]) -> Problem:
    """One of pydantic's errors in our words. `blame` turns a location into the (file, key) to name."""
    file, key = blame(error["loc"])
    return Problem(file, key, _message(schema, error))


def _message(schema: type, error: ErrorDetails) -> str:
    kind, given = error["type"], error["input"]
    location = error["loc"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(schema, location[:-1])
        return f"unknown key{suggestion(str(location[-1]), known) or _among(known)}"
    if kind == "missing":
        return "is required"
    if kind == "value_error":  # our own validators: the message is ready
        return str(error["ctx"]["error"])
    if kind == "enum":
        return f"must be {error['ctx']['expected'].replace(chr(39), '')}, not {kind_of(given)}"
    return f"{_EXPECTED.get(kind) or _range(error) or error['msg'].lower()}, not {kind_of(given)}"


_EXPECTED = {
    "string_type": "must be text (quote it)",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}


def _range(error: ErrorDetails) -> str:
    limits = error.get("ctx", {})
    if error["type"] == "greater_than_equal":
        return f"must be at least {limits['ge']}"
    if error["type"] == "less_than_equal":
        return f"must be at most {limits['le']}"
    return ""


def _among(known: Iterable[str]) -> str:
    names = ", ".join(known)
    return f" (known here: {names})" if names else ""


def _known_keys(schema: Any, location: Location) -> list[str]:
    """The keys that the schema knows at the location: by field in a model, by value in a container."""
    for part in location:
        fields = _fields(schema)
        schema = _bare(fields[str(part)] if fields else _item(schema))
    return list(_fields(schema))


def _fields(schema: Any) -> Mapping[str, Any]:
    if not (hasattr(schema, "__dataclass_fields__") or hasattr(schema, "__pydantic_fields__")):
        return {}
    hints = typing.get_type_hints(schema, include_extras=True)
    return {k: v for k, v in hints.items() if not k.startswith("_") and k != "model_config"}


def _bare(annotation: Any) -> Any:
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _item(annotation: Any) -> Any:
    """Of list[X], tuple[X, ...] and dict[K, X]: X."""
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    return arguments[-1] if arguments else None
