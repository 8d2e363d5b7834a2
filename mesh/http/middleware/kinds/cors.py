"""The CORS part of `headers`: what browsers are told about pages of other origins, and preflight requests,
which are answered here (Fetch standard, section 3.3). Pure.

A response that depends on the origin has `Vary: Origin`: a cache would give one origin the other's response.
"""

from dataclasses import dataclass, replace

from mesh.http.config.matchers import Request
from mesh.http.config.regex import Expression
from mesh.http.local_reply import LocalReply
from mesh.http.middleware.options import MiddlewareOptions
from mesh.labels.values import list_of, parse_count, parse_field_value, parse_strict_flag

Fields = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Cors:
    """What pages of other origins may do."""

    origins: tuple[str, ...] = ()  # "*": all
    expressions: tuple[Expression, ...] = ()  # that match origins
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 0  # seconds for which a browser may remember the answer to a preflight request
    vary: bool = False  # set `Vary: Origin` also where the response is the same for all origins


def parse_cors(options: MiddlewareOptions) -> Cors | None:
    """None: no option is about CORS. Raises LabelError."""
    parse_words = list_of(parse_field_value)
    cors = Cors(
        origins=options.read("accesscontrolalloworiginlist", parse_words, ()),
        expressions=options.read("accesscontrolalloworiginlistregex", list_of(Expression), ()),
        methods=options.read("accesscontrolallowmethods", parse_words, ()),
        headers=options.read("accesscontrolallowheaders", parse_words, ()),
        exposed=options.read("accesscontrolexposeheaders", parse_words, ()),
        credentials=options.read("accesscontrolallowcredentials", parse_strict_flag, False),
        max_age=options.read("accesscontrolmaxage", parse_count, 0),
    )
    vary = options.read("addvaryheader", parse_strict_flag, False)
    return replace(cors, vary=vary) if cors != Cors() else None


def is_preflight(request: Request) -> bool:
    """Is it a browser's question whether a page may send another request?"""
    return (
        request.method == "OPTIONS"
        and bool(request.header("origin"))
        and bool(request.header("access-control-request-method"))
    )


def preflight_reply(cors: Cors, request: Request) -> LocalReply:
    """An origin that may do nothing gets 200 too: the fields that are missing tell the browser."""
    fields = _origin_fields(cors, request)
    if cors.methods:
        fields.append(("Access-Control-Allow-Methods", ", ".join(cors.methods)))
    if cors.headers:
        fields.append(("Access-Control-Allow-Headers", ", ".join(cors.headers)))
    fields.append(("Access-Control-Max-Age", str(cors.max_age)))
    return LocalReply(200, tuple((name.encode(), value.encode("latin-1")) for name, value in fields if value))


def response_fields(cors: Cors, request: Request) -> Fields:
    """The fields to set in the response to a request that is no preflight."""
    fields = _origin_fields(cors, request)
    if cors.exposed:
        fields.append(("Access-Control-Expose-Headers", ", ".join(cors.exposed)))
    return fields


def _origin_fields(cors: Cors, request: Request) -> Fields:
    fields: Fields = []
    if allowed := _allowed_origin(cors, request):
        fields.append(("Access-Control-Allow-Origin", allowed))
    if cors.credentials:
        fields.append(("Access-Control-Allow-Credentials", "true"))
    if cors.vary or cors.expressions or any(origin != "*" for origin in cors.origins):
        fields.append(("Vary", "Origin"))
    return fields


def _allowed_origin(cors: Cors, request: Request) -> str:
    """The value of Access-Control-Allow-Origin; "" when the request's origin is not allowed."""
    origin = next(iter(request.header("origin")), "")
    if not origin:
        return ""
    for allowed in cors.origins:
        if allowed in ("*", origin):
            return allowed
    return origin if any(expression.found(origin) for expression in cors.expressions) else ""
