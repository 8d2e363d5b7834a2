"""Regular expressions from labels, tried on what clients send: RE2, as in Traefik, which wrote them.

Its time grows with the subject only, whatever the expression. Python's own `re` can be made to take for ever.
"""

from dataclasses import dataclass, field
from typing import Any

import re2

from mesh.parsing import is_int, parse_int

TEXT_MAX = 512  # characters of an expression
SUBJECT_MAX = 4096  # characters; longer ones match nothing
MEMORY_MAX = 1 << 20  # bytes that one compiled expression may take

_options = re2.Options()
_options.log_errors = False
_options.max_mem = MEMORY_MAX


@dataclass(frozen=True, slots=True)
class Expression:
    """Compared by its text. Raises ValueError when that is no expression."""

    text: str
    _compiled: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.text) > TEXT_MAX:
            raise ValueError(f"the expression is longer than {TEXT_MAX} characters")
        try:
            object.__setattr__(self, "_compiled", re2.compile(self.text, _options))
        except re2.error as error:
            said = error.args[0]
            why = said.decode() if isinstance(said, bytes) else said
            raise ValueError(f"{self.text!r} is no regular expression (RE2): {why}") from error

    def found(self, subject: str) -> bool:
        """Anywhere in it, unless the expression says ^ and $."""
        return len(subject) <= SUBJECT_MAX and self._compiled.search(subject) is not None

    def first(self, subject: str) -> str:
        """What it matches first; "" if nothing."""
        found = self._compiled.search(subject) if len(subject) <= SUBJECT_MAX else None
        return found.group(0) if found is not None else ""

    def replaced(self, subject: str, by: str) -> str | None:
        """The subject with its first match replaced (`$1`, `${1}`: groups); None when nothing matches."""
        if len(subject) > SUBJECT_MAX:
            return None
        found = self._compiled.search(subject)
        if found is None:
            return None
        groups = (found.group(0), *found.groups())
        new = _filled(by, [group or "" for group in groups], found.groupdict())
        return subject[: found.start()] + new + subject[found.end() :]


def _filled(template: str, groups: list[str], named: dict[str, str | None]) -> str:
    """As Go's Regexp.Expand: $name takes as many letters, digits and _ as there are; $$ is a dollar."""
    out, at = [], 0
    while (dollar := template.find("$", at)) >= 0:
        out.append(template[at:dollar])
        at = dollar + 1
        if template.startswith("$", at):
            out.append("$")
            at += 1
            continue
        braced = template.startswith("{", at)
        start = at + braced
        end = start
        while end < len(template) and (template[end].isalnum() or template[end] == "_"):
            end += 1
        name = template[start:end]
        if braced and not template.startswith("}", end):
            out.append("$")
            continue
        at = end + braced
        if is_int(name):
            known = is_int(name, 0, len(groups) - 1)
            out.append(groups[parse_int(name, 0, len(groups) - 1)] if known else "")
        else:
            out.append(named.get(name) or "")
    out.append(template[at:])
    return "".join(out)
