"""Paths that an endpoint could read differently from the routers' rules: `check_path` decides. Pure.

Servers disagree about a path in a few known ways: some decode `%2F` and `%5C` before they look for `..`, take
`\\` for `/`, drop path parameters (`;x=1`), decode twice, or cut the path at a `?`, a `#` or a NUL that was
encoded. The check has three steps:

1. What has no honest use is refused: dot segments that appear only after decoding or without parameters,
   backslashes, control characters, malformed escapes, overlong UTF-8.
2. Encoded characters that the entry point does not allow are refused.
3. The other ways to read the path (`Readings`) are returned. The router refuses the request when one of them
   leads to another route than the path itself.

Plain dot segments and empty segments are not refused: `normal_path` removes them, and the endpoint gets the
path that the rules have seen.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mesh.http.faults import HttpFault, RequestRefused
from mesh.parsing import parse_hex

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def _escape(found: re.Match[str]) -> str:
    meant = chr(parse_hex(found[1], 0xFF))
    return meant if meant in _UNRESERVED else found[0].upper()


def normal_path(path: str) -> str:
    """One spelling for paths that mean the same (RFC 3986 section 6.2.2): unreserved characters are decoded,
    other escapes are in capitals; `.`, `..` and empty segments are removed. Rules and endpoints get the same
    path, or `/x/../admin` would get past a rule for `/admin`."""
    if "%" in path:
        path = _ESCAPE.sub(_escape, path)
    if "/." not in path and "//" not in path:
        return path
    segments: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            if segments:
                segments.pop()
        elif part not in ("", "."):
            segments.append(part)
    folder = parts[-1] in ("", ".", "..") and segments
    return "/" + "/".join(segments) + ("/" if folder else "")


DECODINGS_MAX = 4  # times that a segment is decoded; usual servers decode once, some twice
READINGS_MAX = 16  # ways to read one path; each costs a lookup of the router

# A path without any of these can be read in one way only.
_NOT_PLAIN = re.compile(r"[%;\\#\x00-\x20\x7f]|//|/\.")
# Most of the others have escapes that every server reads alike (spaces, UTF-8). This expression finds all
# that may be ambiguous: the full check costs ten times as much.
_AMBIGUOUS = re.compile(
    r"[;\\#\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})|%(?:[01]|2[35EFef]|3[BFbf]|5[Cc]|7[Ff]|[Cc][01]|[EFef]0)"
    r"|/\.{1,2}%|%..\.{1,2}(?:[/%]|$)"
)

_CONTROL = r"[\x00-\x20\x7f]"
_REFUSED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\"), "a backslash in the path"),
    (re.compile(_CONTROL), "a space or control character in the path"),
    (re.compile(r"#"), "a fragment in the path"),
    (re.compile(r"%(?![0-9A-Fa-f]{2})"), "a malformed escape in the path"),
    (re.compile(r"%(?:0[1-9A-Fa-f]|1[0-9A-Fa-f]|7[Ff])"), "an encoded control character in the path"),
    # RFC 3629 section 3: no character is written with these first bytes.
    (re.compile(r"%[Cc][01]|%[Ee]0%[89]|%[Ff]0%8", re.I), "overlong UTF-8 in the path"),
)
# Where a server may think that a segment's name ends.
_SEGMENT_END = re.compile(r"[;?#\x00]")
_SEPARATOR = re.compile(r"[/\\]")
_PARAMETERS = re.compile(r";[^/\\]*")
_CUT = re.compile(r"[?#\x00].*", re.DOTALL)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class EncodedCharacters:
    """Encoded characters that an entry point lets through, by the names of Traefik's options.

    True: yes, also where a server could read the path as one for another router. False: no. None, the
    default: where every way to read the path leads to the same router.
    """

    allowEncodedSlash: bool | None = None
    allowEncodedBackSlash: bool | None = None
    allowEncodedNullCharacter: bool | None = False
    allowEncodedSemicolon: bool | None = None
    allowEncodedPercent: bool | None = None
    allowEncodedQuestionMark: bool | None = None
    allowEncodedHash: bool | None = None

    def items(self) -> Iterator[tuple[str, bool | None]]:
        """Each character and its option."""
        yield "/", self.allowEncodedSlash
        yield "\\", self.allowEncodedBackSlash
        yield "\0", self.allowEncodedNullCharacter
        yield ";", self.allowEncodedSemicolon
        yield "%", self.allowEncodedPercent
        yield "?", self.allowEncodedQuestionMark
        yield "#", self.allowEncodedHash


DEFAULT = EncodedCharacters()

Readings = tuple[str, ...]


def is_plain(path: str) -> bool:
    """A path from a request line, which has no space, control character or `#`, can be read in one way only:
    `check_path` is not needed. Five searches cost a third of one regular expression."""
    return not ("%" in path or ";" in path or "/." in path or "//" in path or "\\" in path)


def check_path(path: str, allowed: EncodedCharacters = DEFAULT) -> tuple[str, Readings]:
    """A request's path without its query → its normal form, and the other ways to read it. Raises
    RequestRefused."""
    if _NOT_PLAIN.search(path) is None:
        return path, ()
    if _AMBIGUOUS.search(path) is None:
        return normal_path(path), ()
    why = _why_refused(path) or _why_not_allowed(path, allowed)
    if why:
        raise RequestRefused(HttpFault.BAD_PATH, why)
    normal = normal_path(path)
    if "%" not in normal and ";" not in normal:
        return normal, ()
    return normal, _readings(normal, allowed)


def check_rewritten(path: str) -> str:
    """A path that a middleware has made → why it is refused, or "". After a `?` it is a query that the
    middleware's label has added."""
    if _NOT_PLAIN.search(path) is None:
        return ""
    path = path.partition("?")[0]
    if any(part in (".", "..") for part in _unescaped(path).split("/")):
        return "a dot segment in the rewritten path"
    return _why_refused(path)


def _why_refused(path: str) -> str:
    for pattern, why in _REFUSED:
        if pattern.search(path) is not None:
            return why
    for segment in _unescaped(path).split("/"):
        if segment not in (".", "..") and (why := _why_hidden(segment)):
            return why
    return ""


def _why_hidden(segment: str) -> str:
    """Why a segment is refused that is a dot segment after decoding or without its parameters; or ""."""
    for _ in range(DECODINGS_MAX):
        if any(_is_dots(part) for part in _SEPARATOR.split(segment)):
            return "a hidden dot segment in the path"
        if "%" not in segment:
            return ""
        decoded = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), segment)
        if decoded == segment:
            return ""
        segment = decoded
    return "a path that is encoded too often"


def _is_dots(part: str) -> bool:
    return _SEGMENT_END.split(part, 1)[0].strip() in (".", "..")


def _why_not_allowed(path: str, allowed: EncodedCharacters) -> str:
    for character, option in allowed.items():
        if option is False:
            escape = f"%{ord(character):02X}"
            if escape in path or escape.lower() in path:
                return f"{escape} in the path, which this entry point does not allow"
    return ""


def _readings(normal: str, allowed: EncodedCharacters) -> Readings:
    """Raises RequestRefused when there are more than READINGS_MAX."""
    decoded = frozenset(character for character, option in allowed.items() if option is None)
    found = {normal}
    found |= _each(found, lambda path: _PARAMETERS.sub("", path))
    found |= _each(found, lambda path: _decoded(path, decoded))
    if "%" in decoded:
        found |= _each(found, lambda path: _decoded(path, decoded))
    found |= _each(found, lambda path: path.replace("\\", "/"))
    found |= _each(found, lambda path: _PARAMETERS.sub("", path))
    found |= _each(found, lambda path: _CUT.sub("", path))
    readings = {normal_path(path) for path in found} - {normal}
    if len(readings) > READINGS_MAX:
        raise RequestRefused(HttpFault.BAD_PATH, "a path that can be read in too many ways")
    return tuple(sorted(readings))


def _each(paths: Iterable[str], change: Callable[[str], str]) -> set[str]:
    return {change(path) for path in paths}


def _decoded(path: str, characters: frozenset[str]) -> str:
    def meant(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in characters else found[0]

    return _ESCAPE.sub(meant, path)


def _unescaped(path: str) -> str:
    """With unreserved characters decoded, as `normal_path` does first."""
    return _ESCAPE.sub(_if_unreserved, path) if "%" in path else path


def _if_unreserved(found: re.Match[str]) -> str:
    meant = chr(int(found[1], 16))
    return meant if meant.isascii() and (meant.isalnum() or meant in "-._~") else found[0]
