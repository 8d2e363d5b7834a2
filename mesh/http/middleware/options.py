"""The options of one middleware, as its labels write them. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from mesh.http.config.model import NEVER_SET
from mesh.labels.values import FIELD_NAME, FIELD_VALUE, list_of, parse_field_name


class LabelError(ValueError):
    """The middleware cannot be made. `option`: what follows the kind in the label, with its dot."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = f".{option}" if option else ""


class MiddlewareOptions:
    """Option → text. Names of options are compared without regard to case; `used` has those that were
    read."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = {key.lower(): value for key, value in options.items()}
        self._written = {key.lower(): key for key in options}
        self.used: set[str] = set()

    def read(self, name: str, parse: Callable[[str], Any], default: Any = None) -> Any:
        """The option's value. Without a default the option is required. Raises LabelError."""
        self.used.add(name)
        text = self._options.get(name)
        if text is None:
            if default is None:
                raise LabelError(name, "is required")
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise LabelError(name, str(error)) from error

    def below(self, name: str) -> list[tuple[str, str]]:
        """Of all labels `name.X = value`: X as written, and the value."""
        prefix = name + "."
        found = [key for key in self._options if key.startswith(prefix)]
        self.used.update(found)
        return [(self._written[key][len(prefix) :], self._options[key]) for key in found]

    def unused(self) -> list[str]:
        """The options that nobody has read, as written."""
        return sorted(self._written[key] for key in self._options.keys() - self.used if key)


def parse_settable_names(text: str) -> tuple[str, ...]:
    """Names of header fields that a middleware may set."""
    names = list_of(parse_field_name)(text)
    if never := [name for name in names if name.lower() in NEVER_SET]:
        raise ValueError(f"{never[0]!r} is no field that can be set")
    return names


def parse_field(name: str, value: str) -> tuple[str, str]:
    """A field that a `headers` middleware sets: name and value. Raises LabelError."""
    if FIELD_NAME.fullmatch(name) is None or name.lower() in NEVER_SET - {"host"}:
        raise LabelError(name, f"{name!r} is no field that can be set")
    if FIELD_VALUE.fullmatch(value) is None:
        raise LabelError(name, "the value has bytes that no field may have")
    return name, value
