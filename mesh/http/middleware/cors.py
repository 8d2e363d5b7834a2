"""Pages of other origins: what is told to browsers, and preflights that are answered here. Pure.

A response that is not the same for all origins says so (Vary), or a cache would give one what is another's.
"""

from mesh.http.config.matchers import Request
from mesh.http.config.model import Cors
from mesh.http.local_reply import LocalReply

Lines = list[tuple[str, str | None]]


def is_preflight(request: Request) -> bool:
    """Does a browser ask whether it may ask?"""
    return (
        request.method == "OPTIONS"
        and bool(request.header("origin"))
        and bool(request.header("access-control-request-method"))
    )


def preflight(one: Cors, request: Request) -> LocalReply:
    """To an origin that may do nothing too: what is missing in it tells the browser."""
    lines = _origin(one, request)
    if one.methods:
        lines.append(("Access-Control-Allow-Methods", ", ".join(one.methods)))
    if one.headers:
        lines.append(("Access-Control-Allow-Headers", ", ".join(one.headers)))
    lines.append(("Access-Control-Max-Age", str(one.max_age)))
    return LocalReply(200, tuple((name.encode(), value.encode("latin-1")) for name, value in lines if value))


def response_lines(one: Cors, request: Request) -> Lines:
    """To be set in the response."""
    lines = _origin(one, request)
    if one.exposed:
        lines.append(("Access-Control-Expose-Headers", ", ".join(one.exposed)))
    return lines


def _origin(one: Cors, request: Request) -> Lines:
    lines: Lines = []
    if allowed := _allowed(one, request):
        lines.append(("Access-Control-Allow-Origin", allowed))
    if one.credentials:
        lines.append(("Access-Control-Allow-Credentials", "true"))
    if one.vary or one.expressions or any(origin != "*" for origin in one.origins):
        lines.append(("Vary", "Origin"))
    return lines


def _allowed(one: Cors, request: Request) -> str:
    """What the field is to say; "" when the origin may not."""
    origin = next(iter(request.header("origin")), "")
    if not origin:
        return ""
    for allowed in one.origins:
        if allowed in ("*", origin):
            return allowed
    return origin if any(expression.found(origin) for expression in one.expressions) else ""
