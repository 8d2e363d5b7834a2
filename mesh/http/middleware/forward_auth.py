"""Somebody else says who may come in: what is asked, and what becomes of what was said. Pure.

Asked is with the request's own fields, and where it was going. After a 2xx it goes on, with the fields that
the answer has for it: what the client says by these names never reaches the application. Anything else is the
client's answer. Without an answer nobody comes in.
"""

from collections.abc import Iterator
from urllib.parse import urljoin

from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.codec.protected_fields import canonical
from mesh.http.codec.proxy_headers import NOT_WITHOUT_BODY, response_lines, with_fields
from mesh.http.config.model import NEVER_SET, ForwardAuth
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply
from mesh.http.request_plan import RequestContext, RequestPlan, put

_NOT_ASKED = (*NOT_WITHOUT_BODY, b"host", b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host")
_OURS = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip")


def question(one: ForwardAuth, asked: RequestContext, treatment: RequestPlan, lines: bytes) -> bytes:
    """Its field lines. `lines`: those of the request, as an endpoint would get them."""
    given = Fields(with_fields(lines, treatment.request_fields))
    target = f"{treatment.path}?{treatment.query}" if treatment.query else treatment.path
    told: dict[str, bytes] = {
        "Host": one.authority.encode(),
        "X-Forwarded-Method": asked.request.method.encode(),
        "X-Forwarded-Uri": target.encode("latin-1"),
        "X-Forwarded-Host": asked.authority.encode("latin-1"),
    }
    if one.trust:  # there is none of others than trusted proxies
        for name in ("X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host"):
            told[name] = given.get(name.lower().encode()) or told[name]
    block = Fields(given.without(*_NOT_ASKED)).raw
    if one.request_headers:
        wanted = {name.lower().encode() for name in one.request_headers} | set(_OURS)
        kept = [line for line in Fields(block).items() if line[0].lower() in wanted]
        block = b"".join(b"%b: %b\r\n" % line for line in kept)
    return block + b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in told.items())


def judge(
    one: ForwardAuth,
    asked: RequestContext,
    treatment: RequestPlan,
    lines: bytes,
    head: ResponseHead | None,
    body: bytes,
) -> None:
    """What was said; `head` None: nothing."""
    if head is None:
        treatment.refuse(HttpFault.NO_VERDICT, asked.request_id)
    elif 200 <= head.status < 300:
        for name, values in _for_the_task(one, lines, head):
            put(treatment.request_fields, name, *values)
        for line in head.fields.all(b"set-cookie"):
            cookie = line.decode("latin-1")
            if cookie.partition("=")[0].strip() in one.cookies:
                treatment.response_fields.append(("Set-Cookie", cookie))
    else:
        treatment.answer = answered(head, body, "" if one.keep_location else one.url)


def answered(head: ResponseHead, body: bytes, base: str = "") -> LocalReply:
    """The response as an answer of ours; a relative Location is meant from `base`."""
    block = Fields(response_lines(head).partition(b"\r\n")[2])
    fields = Fields(block.without(b"content-length", b"trailer")).items()
    if base:
        fields = [_absolute(one, base) for one in fields]
    return LocalReply(head.status, tuple(fields), body)


def _absolute(line: tuple[bytes, bytes], base: str) -> tuple[bytes, bytes]:
    if line[0].lower() != b"location":
        return line
    try:
        return line[0], urljoin(base, line[1].decode("latin-1")).encode("latin-1")
    except ValueError:  # it is no URL; the client may make of it what it can
        return line


def _for_the_task(
    one: ForwardAuth, lines: bytes, head: ResponseHead
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names and values; no value: the request is to have none."""
    names = {name.lower(): name for name in one.response_headers}
    if one.response_expression is not None:
        for line in (*Fields(lines).items(), *head.fields.items()):
            # As Go writes them, for whom the expressions are made; another spelling is the same name.
            written = canonical(line[0]).decode().title()
            if one.response_expression.found(written) and written.lower() not in NEVER_SET:
                names.setdefault(written.lower(), written)
    for lower, name in names.items():
        yield name, tuple(value.decode("latin-1") for value in head.fields.all(lower.encode()))
