"""Reads the labels of one service, and collects a problem for each that cannot be read. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from mesh.errors import Problem

T = TypeVar("T")


@dataclass(slots=True)
class LabelReader:
    """`problems`: `file` is the service's name, `key` the label as written."""

    service: str  # name
    labels: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def read(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """The value of a label; the default without the label, or if it cannot be read."""
        text = self.labels.get(key)
        if text is None:
            return default
        value = self.parse(key, text.strip(), parse, f"{default or 'none'} is used")
        return default if value is None else value

    def parse(self, key: str, text: str, parse: Callable[[str], T], otherwise: str = "ignored") -> T | None:
        """The value of this text. None: it cannot be read; `otherwise` says what happens then."""
        try:
            return parse(text)
        except ValueError as error:
            self.fault(key, f"{error}; {otherwise}")
            return None

    def fault(self, key: str, message: str) -> None:
        self.problems.append(Problem(self.service, key, message))
