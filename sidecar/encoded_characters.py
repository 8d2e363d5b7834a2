"""How the encoded characters that an entry point lets through are configured (meaning: `path_check`)."""

from dataclasses import dataclass

from pydantic import ConfigDict

from mesh.http.codec.path_check import EncodedCharacters


@dataclass(frozen=True, slots=True)
class Encoded(EncodedCharacters):
    """Of one entry point. Its keys are named as Traefik names them."""

    __pydantic_config__ = ConfigDict(extra="forbid")


def by_entry_point(text: str) -> object:
    """`web.allowEncodedSlash=true,…` → entry point → option → value. The text itself when it cannot be read:
    the check of the whole configuration then says whose fault that is."""
    found: dict[str, dict[str, str]] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, sign, value = item.partition("=")
        entry, dot, option = name.rpartition(".")
        if not sign or not dot:
            return text
        found.setdefault(entry, {})[option] = value
    return found
