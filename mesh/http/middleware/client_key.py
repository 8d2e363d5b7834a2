"""Whose request it is, for those middlewares that treat each source differently. Pure.

Addresses that a proxy names count only where it is trusted: `RequestContext.forwarded_for` has no others.
"""

from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from mesh.http.config.matchers import Request
from mesh.http.config.model import (
    ClientKeySource,
    InFlightReq,
    IpAllowList,
    IpStrategy,
    Middleware,
    RateLimit,
)

KEY_MAX = 64  # characters; longer ones are kept as a digest, for clients write them


class RequestSource(Protocol):
    @property
    def request(self) -> Request: ...
    @property
    def forwarded_for(self) -> tuple[str, ...]: ...


def by_proxies(one: Middleware) -> bool:
    """Does it go by addresses that proxies name? Then it needs some that are trusted."""
    match one:
        case IpAllowList():
            return one.strategy.named
        case RateLimit() | InFlightReq():
            return one.source.address.named
        case _:
            return False


def address(strategy: IpStrategy, asked: RequestSource) -> str:
    """As written; "" when the proxies in front have not named so many."""
    if strategy.depth:
        named = asked.forwarded_for
        return named[-strategy.depth] if len(named) >= strategy.depth else ""
    if strategy.excluded:
        return next((one for one in reversed(asked.forwarded_for) if not _within(one, strategy)), "")
    return asked.request.client


def key(source: ClientKeySource, asked: RequestSource) -> str:
    """The same for requests of the same source."""
    if source.header:
        found = "\n".join(asked.request.header(source.header.lower()))
    elif source.host:
        found = asked.request.host
    else:
        found = _masked(address(source.address, asked), source.prefix6)
    return found if len(found) <= KEY_MAX else blake2b(found.encode(), digest_size=16).hexdigest()


def _within(one: str, strategy: IpStrategy) -> bool:
    try:
        found = ip_address(one)
    except ValueError:
        return False
    return any(found in network for network in strategy.excluded)


def _masked(written: str, prefix: int) -> str:
    if not prefix or ":" not in written:
        return written
    try:
        found = ip_address(written)
    except ValueError:
        return written
    if not isinstance(found, IPv6Address):
        return written
    return str(ip_network((int(found), prefix), strict=False).network_address)
