"""`forwardauth`: an authorization service decides whether a request may pass. Pure.

The service gets the request's header fields, without the body, and the original method and URI in
`X-Forwarded-*`. After a 2xx the request is sent on, with the fields that the labels take over from the
answer; what the client says by these names never reaches the application. Any other answer is the client's.
Without an answer the request is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.codec.protected_fields import canonical
from mesh.http.codec.proxy_headers import NOT_WITHOUT_BODY, with_fields
from mesh.http.config.model import NEVER_SET, Middleware
from mesh.http.config.regex import Expression
from mesh.http.faults import HttpFault
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions, parse_settable_names
from mesh.http.middleware.upstream_reply import reply_from
from mesh.http.request_plan import RequestContext, RequestPlan, set_field
from mesh.labels.values import list_of, parse_field_name, parse_path, parse_strict_flag

_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,252}[a-z0-9_])?|[0-9a-f:.]{2,45}")
_NOT_SENT = (*NOT_WITHOUT_BODY, b"host", b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host")
_ALWAYS_SENT = (
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-real-ip",
)


@dataclass(frozen=True, slots=True)
class ForwardAuth(Middleware):
    """The authorization service's address, and which fields go to it and come from it."""

    url: str  # with a path
    host: str  # lower case
    port: int
    target: str  # path and query
    authority: str
    tls: bool = False
    trust_forward_header: bool = False  # what trusted proxies say of the method, host and URI is passed on
    request_headers: tuple[str, ...] = ()  # that are sent to the service; none: all
    response_headers: tuple[str, ...] = ()  # of the answer, that the request is sent on with
    response_expression: Expression | None = None  # matches the names of more of them
    cookies: tuple[str, ...] = ()  # of the answer, that are set in the response
    preserve_location: bool = False  # leave a relative Location of the answer as it is
    preserve_method: bool = False  # ask with the request's method in place of GET
    scope: str = ""  # of the label: the stack's name

    @property
    def may_be_external(self) -> bool:
        """Can the service be outside the Swarm?"""
        return self.tls or "." in self.host or ":" in self.host


class NeedsAuthRequest(Exception):
    """The authorization service has to be asked. The caller sends `auth_request_fields`, calls
    `apply_verdict` with the answer, and then runs the handlers after this one."""

    def __init__(self, configured: ForwardAuth) -> None:
        super().__init__()
        self.configured = configured


def _parse(options: MiddlewareOptions) -> ForwardAuth:
    auth: ForwardAuth = options.read("address", parse_address)
    parse_names = list_of(parse_field_name)
    return replace(
        auth,
        trust_forward_header=options.read("trustforwardheader", parse_strict_flag, False),
        request_headers=options.read("authrequestheaders", parse_names, ()),
        response_headers=options.read("authresponseheaders", parse_settable_names, ()),
        response_expression=options.read("authresponseheadersregex", _parse_expression, ()) or None,
        cookies=options.read("addauthcookiestoresponse", parse_names, ()),
        preserve_location=options.read("preservelocationheader", parse_strict_flag, False),
        preserve_method=options.read("preserverequestmethod", parse_strict_flag, False),
    )


def _parse_expression(text: str) -> Expression | None:
    return Expression(text) if text else None


def parse_address(text: str) -> ForwardAuth:
    """`http://NAME:PORT/PATH` or https. Raises ValueError."""
    url = urlsplit(text)
    host = (url.hostname or "").rstrip(".")
    if url.scheme not in ("http", "https") or _HOST.fullmatch(host) is None or "@" in url.netloc:
        raise ValueError(f"{text!r} is no address as http://NAME:PORT/PATH")
    target = parse_path((url.path or "/") + (f"?{url.query}" if url.query else ""))
    written = f"[{host}]" if ":" in host else host
    authority = f"{written}:{url.port}" if url.port else written
    tls = url.scheme == "https"
    whole = f"{url.scheme}://{authority}{target}"
    return ForwardAuth(whole, host, url.port or (443 if tls else 80), target, authority, tls)


def _handle(configured: ForwardAuth, _context: RequestContext, _plan: RequestPlan) -> None:
    raise NeedsAuthRequest(configured)


def auth_request_fields(
    configured: ForwardAuth, context: RequestContext, plan: RequestPlan, lines: bytes
) -> bytes:
    """The field lines of the request to the service. `lines`: those of the client's request, as an endpoint
    would get them."""
    given = Fields(with_fields(lines, plan.request_fields))
    uri = f"{plan.path}?{plan.query}" if plan.query else plan.path
    added: dict[str, bytes] = {
        "Host": configured.authority.encode(),
        "X-Forwarded-Method": context.request.method.encode(),
        "X-Forwarded-Uri": uri.encode("latin-1"),
        "X-Forwarded-Host": context.authority.encode("latin-1"),
    }
    if configured.trust_forward_header:  # only trusted proxies' fields have come this far
        for name in ("X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host"):
            added[name] = given.get(name.lower().encode()) or added[name]
    block = Fields(given.without(*_NOT_SENT)).raw
    if configured.request_headers:
        wanted = {name.lower().encode() for name in configured.request_headers} | set(_ALWAYS_SENT)
        chosen = [line for line in Fields(block).items() if line[0].lower() in wanted]
        block = b"".join(b"%b: %b\r\n" % line for line in chosen)
    return block + b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in added.items())


def apply_verdict(
    configured: ForwardAuth,
    context: RequestContext,
    plan: RequestPlan,
    lines: bytes,
    head: ResponseHead | None,
    body: bytes,
) -> None:
    """Change the plan as the service's answer says. `head` None: there was no answer."""
    if head is None:
        plan.refuse(HttpFault.NO_VERDICT, context.request_id)
    elif 200 <= head.status < 300:
        for name, values in _fields_for_endpoint(configured, lines, head):
            set_field(plan.request_fields, name, *values)
        for line in head.fields.all(b"set-cookie"):
            cookie = line.decode("latin-1")
            if cookie.partition("=")[0].strip() in configured.cookies:
                plan.response_fields.append(("Set-Cookie", cookie))
    else:
        plan.answer = reply_from(head, body, "" if configured.preserve_location else configured.url)


def _fields_for_endpoint(
    configured: ForwardAuth, lines: bytes, head: ResponseHead
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names and values; no value: the field is removed from the request."""
    names = {name.lower(): name for name in configured.response_headers}
    if configured.response_expression is not None:
        for line in (*Fields(lines).items(), *head.fields.items()):
            # The expression is written for Go's spelling of names; another spelling is the same name.
            written = canonical(line[0]).decode().title()
            if configured.response_expression.found(written) and written.lower() not in NEVER_SET:
                names.setdefault(written.lower(), written)
    for lower, name in names.items():
        yield name, tuple(value.decode("latin-1") for value in head.fields.all(lower.encode()))


KIND = MiddlewareKind(("forwardauth",), ForwardAuth, _parse, stateless(_handle), guards=True)
