"""JSON from another sidecar, validated as a whole against a dataclass. Pure."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mesh.errors import DiscoveryError

T = TypeVar("T")


_SHOWN = 3  # faults of a message that are quoted


def valid(expected: TypeAdapter[T], data: bytes) -> T:
    """The document that `data` is. Raises DiscoveryError when it does not fit."""
    try:
        return expected.validate_json(data)
    except ValidationError as error:
        raise DiscoveryError(f"not a message of the feed: {_faults(error.errors())}") from error


def _faults(errors: list[Any]) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors[:_SHOWN])
