"""The key that tells clients apart for limits: an address, a header field or the requested host. Pure.

Addresses in X-Forwarded-For count only where the proxy is trusted: `RequestContext.forwarded_for` has no
others.
"""

from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from mesh.http.config.matchers import Request
from mesh.http.middleware.options import LabelError, MiddlewareOptions
from mesh.labels.values import (
    IpNetwork,
    list_of,
    parse_count,
    parse_field_name,
    parse_field_value,
    parse_network,
    parse_strict_flag,
)

KEY_MAX = 64  # characters; longer keys are stored as a digest, for clients write them


@dataclass(frozen=True, slots=True)
class IpStrategy:
    """Which address of X-Forwarded-For is the client's. Without both: the address that is connected to us."""

    depth: int = 0  # the address at this position from the right, 1 is the last
    excluded: tuple[IpNetwork, ...] = ()  # the first from the right that is in none of these

    @property
    def is_set(self) -> bool:
        return bool(self.depth or self.excluded)


@dataclass(frozen=True, slots=True)
class ClientKeySource:
    """What of a request is the client's key: a field's value, the requested host, or an address."""

    header: str = ""
    host: bool = False
    address: IpStrategy = IpStrategy()
    prefix6: int = 0  # IPv6 addresses with this many leading bits in common are one client; 0: all bits


CONNECTED_ADDRESS = IpStrategy()
BY_ADDRESS = ClientKeySource()


class RequestSource(Protocol):
    """What is read of a RequestContext."""

    @property
    def request(self) -> Request: ...
    @property
    def forwarded_for(self) -> tuple[str, ...]: ...


def parse_ip_strategy(options: MiddlewareOptions, prefix: str) -> IpStrategy:
    """The options `<prefix>ipstrategy.*`. Raises LabelError."""
    options.read(f"{prefix}ipstrategy", parse_field_value, "true")
    return IpStrategy(
        options.read(f"{prefix}ipstrategy.depth", parse_count, 0),
        options.read(f"{prefix}ipstrategy.excludedips", list_of(parse_network), ()),
    )


def parse_client_key_source(options: MiddlewareOptions, default: ClientKeySource) -> ClientKeySource:
    """The options `sourcecriterion.*`; the default without any. Several that exclude each other raise
    LabelError."""
    strategy = parse_ip_strategy(options, "sourcecriterion.")
    prefix = options.read("sourcecriterion.ipstrategy.ipv6subnet", parse_count, 0)
    if prefix > 128:
        raise LabelError("sourcecriterion.ipstrategy.ipv6subnet", f"{prefix} is more than 128")
    header = options.read("sourcecriterion.requestheadername", parse_field_name, "")
    host = options.read("sourcecriterion.requesthost", parse_strict_flag, False)
    if bool(header) + host + (strategy.is_set or prefix > 0) > 1:
        raise LabelError("sourcecriterion", "several criteria")
    found = ClientKeySource(header, host, strategy, prefix)
    return found if found != ClientKeySource() else default


def client_address(strategy: IpStrategy, source: RequestSource) -> str:
    """The client's address as written; "" when the proxies in front have not named it."""
    if strategy.depth:
        forwarded = source.forwarded_for
        return forwarded[-strategy.depth] if len(forwarded) >= strategy.depth else ""
    if strategy.excluded:
        return next((one for one in reversed(source.forwarded_for) if not _is_excluded(one, strategy)), "")
    return source.request.client


def client_key(source: ClientKeySource, context: RequestSource) -> str:
    """The same text for all requests of one client."""
    if source.header:
        found = "\n".join(context.request.header(source.header.lower()))
    elif source.host:
        found = context.request.host
    else:
        found = _masked(client_address(source.address, context), source.prefix6)
    return found if len(found) <= KEY_MAX else blake2b(found.encode(), digest_size=16).hexdigest()


def _is_excluded(written: str, strategy: IpStrategy) -> bool:
    try:
        address = ip_address(written)
    except ValueError:
        return False
    return any(address in network for network in strategy.excluded)


def _masked(written: str, prefix: int) -> str:
    if not prefix or ":" not in written:
        return written
    try:
        address = ip_address(written)
    except ValueError:
        return written
    if not isinstance(address, IPv6Address):
        return written
    return str(ip_network((int(address), prefix), strict=False).network_address)
