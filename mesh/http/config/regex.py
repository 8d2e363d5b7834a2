"""Regular expressions from labels, matched against what clients send. Pure.

The engine is RE2, which has the syntax of Traefik's expressions. Its time is linear in the length of the
subject, whatever the expression; an expression can make Python's own `re` take exponential time.
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
    """Equal if the texts are. Raises ValueError when the text is no expression."""

    text: str
    _compiled: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.text) > TEXT_MAX:
            raise ValueError(f"the expression is longer than {TEXT_MAX} characters")
        try:
            object.__setattr__(self, "_compiled", re2.compile(self.text, _options))
        except re2.error as error:
            reason = error.args[0]
            why = reason.decode() if isinstance(reason, bytes) else reason
            raise ValueError(f"{self.text!r} is no regular expression (RE2): {why}") from error

    def found(self, subject: str) -> bool:
        """Does the expression match anywhere in the subject?"""
        return len(subject) <= SUBJECT_MAX and self._compiled.search(subject) is not None

    def first(self, subject: str) -> str:
        """The text of the first match; "" if there is none."""
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
        new = _expanded(by, [group or "" for group in groups], found.groupdict())
        return subject[: found.start()] + new + subject[found.end() :]


def _expanded(template: str, groups: list[str], named: dict[str, str | None]) -> str:
    """The template with its groups filled in, as Go's Regexp.Expand does: a name after $ is as long as
    letters, digits and _ follow; $$ is a dollar."""
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
