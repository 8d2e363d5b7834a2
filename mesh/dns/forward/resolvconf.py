"""resolv.conf(5) as text → what it means for a forwarder.

`nameserver`, and of the options `timeout`, `attempts`, `rotate` and `use-vc` count here. The others (search,
ndots, edns0, trust-ad, …) are the business of whoever asks us: each container has its own resolv.conf.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.dns.config import RESOLV_ATTEMPTS_MAX, RESOLV_TIMEOUT_MAX
from mesh.parsing import is_int, parse_int

NUMBER_MAX = 999_999_999  # of an option's value; a larger one is none


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """`timeout` in seconds and `attempts` (rounds over all servers): None where the file does not say."""

    nameservers: tuple[str, ...] = ()
    timeout: int | None = None
    attempts: int | None = None
    rotate: bool = False
    tcp: bool = False


def parse_resolv_conf(text: str) -> ResolvConf:
    """Never fails: what cannot be read is passed over, as libc does. Later options win."""
    lines = [line.split() for line in text.splitlines()]
    options = dict(_options(lines))
    return ResolvConf(
        nameservers=tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"),
        timeout=_number(options.get("timeout"), RESOLV_TIMEOUT_MAX),
        attempts=_number(options.get("attempts"), RESOLV_ATTEMPTS_MAX),
        rotate="rotate" in options,
        tcp="use-vc" in options,
    )


def _options(lines: list[list[str]]) -> Iterator[tuple[str, str]]:
    for words in lines:
        if words and words[0] == "options":
            for word in words[1:]:
                name, _, value = word.partition(":")
                yield name, value


def _number(text: str | None, most: int) -> int | None:
    """libc takes 1 up to its own maximum, and a larger number for that."""
    if text is None or not is_int(text, 1, NUMBER_MAX):
        return None
    return min(parse_int(text, 1, NUMBER_MAX), most)
