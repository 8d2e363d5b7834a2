"""Makes the head for the other side: without hop-by-hop fields, with fields that name the client. Pure.

A client could pretend to be another one, so the fields that it sends about itself are passed on only if it is
a trusted proxy (`protected_fields`).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from mesh.http.byte_budget import ByteAccount, ByteBudget
from mesh.http.codec.h1_head import CHUNKED, Fields, RequestFields, ResponseHead
from mesh.http.codec.protected_fields import from_proxy, from_stranger, is_protected, without_names

# RFC 9110 section 7.6.1. Of `te` only "trailers" may be passed on: it is added again.
_HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
# Fields that Connection must not remove: the message would mean something else.
_NOT_OPTIONS = frozenset(
    (
        *(b"host", b"content-length", b"close", b"keep-alive", b"cookie", b"authorization", *_HOP_BY_HOP),
        *(b"content-type", b"content-encoding", b"content-range", b"cache-control", b"origin"),
    )
)
# Fields that a subrequest without a body does not copy from the client's request.
NOT_WITHOUT_BODY = (
    *(b"content-length", b"transfer-encoding", b"trailer", b"expect"),
    *(b"connection", b"te", b"upgrade"),
)
_HOP_BY_HOP_LINES = tuple((name, b"\n" + name + b":") for name in _HOP_BY_HOP)  # as `Fields.lower` has them
# Fields that name the client. Their lines are formatted in one step: each new connection needs them.
_OF_CLIENT = (
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"X-Forwarded-Port",
    b"X-Real-Ip",
)
_OF_CLIENT_LINES = b"".join(name + b": %b\r\n" for name in _OF_CLIENT)
_ADDED = ("Set-Cookie", "Vary")  # response fields that are added to the application's, not set in their place
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


@dataclass(slots=True)
class ClientInfo:
    """A client's connection, as endpoints learn of it. Each connection has one: a frozen dataclass would take
    three times as long to make."""

    client: str  # address
    scheme: str  # http, https
    port: int  # the proxy's, to which the client is connected
    trusts: Callable[[str], bool] = lambda _: False  # an address is that of a trusted proxy
    version: str = ""  # of HTTP, where the connection decides it and not the request
    budget: ByteBudget | None = field(default=None, compare=False, repr=False)  # the process's
    trusted: bool = field(init=False)  # this client is a trusted proxy
    _account: ByteAccount | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.trusted = self.trusts(self.client)

    @property
    def account(self) -> ByteAccount | None:
        """The account of the bytes held for this client; None: they are not counted. It is made at its first
        use: small requests that are answered at once need none."""
        if self._account is None and self.budget is not None:
            self._account = self.budget.account(self.client, limited=not self.trusted)
        return self._account

    def close(self) -> None:
        """The connection is closed: its account is closed, and nothing more is counted."""
        self.budget = None
        if self._account is not None:
            self._account.close()

    @property
    def node(self) -> str:
        """The client's address as a node identifier of Forwarded (RFC 7239 section 6)."""
        return f'"[{self.client}]"' if ":" in self.client else self.client


def request_block(about: RequestFields, edge: ClientInfo) -> bytes:
    """The field lines for the endpoint, all but the request's id. They include the framing of the body."""
    fields = about.fields
    lower = fields.lower
    drop = [name for name, line in _HOP_BY_HOP_LINES if line in lower]
    drop += [
        option
        for option in about.options
        if option not in _NOT_OPTIONS and not is_protected(option) and fields.has(option)
    ]
    block = fields.without(*drop) if drop else fields.raw
    if edge.trusted:
        added = _continued(about, edge)
        # The id is added for each request.
        block = without_names(from_proxy(block), (*added, b"x-request-id"))
        lines = [block, *(b"%b: %b\r\n" % line for line in added.items())]
    else:
        lines = [from_stranger(block), _OF_CLIENT_LINES % _begun(about, edge)]
    if about.authority is None:  # HTTP/1.0; in HTTP/1.1 Host is required, perhaps empty: RFC 9112 section 3.2
        lines.insert(0, b"Host:\r\n")
    if about.length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if b"te" in drop and b"trailers" in fields.tokens(b"te"):
        lines.append(b"TE: trailers\r\n")
        connection = [b"TE"]
    else:
        connection = []
    if about.upgrade:
        connection.append(b"Upgrade")
        lines.append(b"Upgrade: %b\r\n" % about.upgrade)
    if connection:
        lines.append(b"Connection: %b\r\n" % b", ".join(connection))
    return b"".join(lines)


def _begun(about: RequestFields, edge: ClientInfo) -> tuple[bytes, ...]:
    """The values of the fields `_OF_CLIENT`."""
    client = edge.client.encode()
    return client, edge.scheme.encode(), about.authority or b"", b"%d" % edge.port, client


def _continued(about: RequestFields, edge: ClientInfo) -> dict[bytes, bytes]:
    """The fields to set for a request from a trusted proxy. What it has sent stays; its address is added to
    the lists of proxies."""
    fields = about.fields
    begun = dict(zip(_OF_CLIENT, _begun(about, edge), strict=True))
    begun[b"X-Real-Ip"] = source_of(fields, edge).encode()
    added = {name: value for name, value in begun.items() if not fields.has(name.lower())}
    before = b", ".join(fields.all(b"x-forwarded-for"))
    if before:
        added[b"X-Forwarded-For"] = before + b", " + edge.client.encode()
    if forwarded := b", ".join(fields.all(b"forwarded")):
        added[b"Forwarded"] = forwarded + b", for=" + edge.node.encode()
    return added


def source_of(fields: Fields, edge: ClientInfo) -> str:
    """The address whose request it is: the last one in X-Forwarded-For that is not a trusted proxy's.
    Addresses before it are not believed."""
    source = edge.client
    if not edge.trusted:
        return source
    named = b",".join(fields.all(b"x-forwarded-for")).decode("latin-1").split(",")
    for one in reversed(named):
        try:
            source = str(ip_address(one.strip()))
        except ValueError:
            return source
        if not edge.trusts(source):
            return source
    return source


def given_request_id(about: RequestFields) -> bytes | None:
    """The request's id, as a trusted proxy has set it."""
    value = about.fields.get(b"x-request-id")
    return value if value and _REQUEST_ID.fullmatch(value) else None


def response_lines(response: ResponseHead) -> bytes:
    """Status line and field lines for the client, without framing other than Content-Length."""
    lines = response.forwarded
    if not lines:
        fields = response.fields
        lower = fields.lower
        drop = [name for name, line in _HOP_BY_HOP_LINES if line in lower]
        drop += [name for name in response.options if name not in _NOT_OPTIONS and name != b"set-cookie"]
        block = fields.without(*drop) if drop else fields.raw
        lines = b"HTTP/1.1 %d %b\r\n%b" % (response.status, response.reason, block)
        response.forwarded = lines
    return lines


def with_fields(block: bytes, fields: Sequence[tuple[str, str | None]]) -> bytes:
    """The block with these fields set, each in place of all lines of its name, or removed (None). Names are
    compared in canonical form (`protected_fields`)."""
    rest = without_names(block, {name.encode() for name, _ in fields})
    new = [f"{name}: {value}\r\n".encode("latin-1") for name, value in fields if value is not None]
    return rest + b"".join(new)


def changed_response(head: ResponseHead, fields: Sequence[tuple[str, str | None]]) -> ResponseHead:
    """The head with these fields set or removed (None); Set-Cookie and Vary are added to those that are
    there."""
    added = [one for one in fields if one[0] in _ADDED and one[1] is not None]
    block = with_fields(head.fields.raw, [one for one in fields if one not in added])
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in added]
    changed = ResponseHead(head.status, head.reason, head.minor, Fields(block + b"".join(lines)))
    # The task's Connection is about the task's fields, not about those that are set here.
    names = {name.lower().encode() for name, _ in fields}
    changed.options = tuple(one for one in changed.options if one not in names)
    return changed
