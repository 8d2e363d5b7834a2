"""`headers`: sets and removes header fields of requests and responses, and answers for CORS. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.kinds.cors import Cors, is_preflight, parse_cors, preflight_reply, response_fields
from mesh.http.middleware.options import MiddlewareOptions, parse_field
from mesh.http.request_plan import RequestContext, RequestPlan, set_field
from mesh.labels.values import parse_positive, parse_strict_flag


@dataclass(frozen=True, slots=True)
class Headers(Middleware):
    """Names and values of fields. An empty value removes the field."""

    request: tuple[tuple[str, str], ...] = ()
    response: tuple[tuple[str, str], ...] = ()
    cors: Cors | None = None


# Option, field, value: flags that set a field of the response.
_FLAG_FIELDS = (
    ("framedeny", "X-Frame-Options", "DENY"),
    ("contenttypenosniff", "X-Content-Type-Options", "nosniff"),
    ("browserxssfilter", "X-XSS-Protection", "1; mode=block"),
)
# Option, field: the option's value is the field's.
_VALUE_FIELDS = (
    ("customframeoptionsvalue", "X-Frame-Options"),
    ("contentsecuritypolicy", "Content-Security-Policy"),
    ("contentsecuritypolicyreportonly", "Content-Security-Policy-Report-Only"),
    ("custombrowserxssvalue", "X-XSS-Protection"),
    ("referrerpolicy", "Referrer-Policy"),
    ("permissionspolicy", "Permissions-Policy"),
)
_HARMLESS = (
    *("sslredirect", "ssltemporaryredirect", "sslhost", "sslproxyheaders", "sslforcehost"),
    *("featurepolicy", "hostsproxyheaders", "isdevelopment", "publickey"),
)


def _parse(options: MiddlewareOptions) -> Headers:
    request = [parse_field(*one) for one in options.below("customrequestheaders")]
    response = [parse_field(*one) for one in options.below("customresponseheaders")]
    response += _transport_security(options)
    for option, name, value in _FLAG_FIELDS:
        if options.read(option, parse_strict_flag, False):
            response.append((name, value))
    for option, name in _VALUE_FIELDS:
        if value := options.read(option, str, ""):
            response.append(parse_field(name, value))
    return Headers(tuple(request), tuple(response), parse_cors(options))


def _transport_security(options: MiddlewareOptions) -> list[tuple[str, str]]:
    """Strict-Transport-Security (RFC 6797). Browsers follow it only after TLS, so it is always set."""
    age = options.read("stsseconds", parse_positive, 0)
    subdomains = options.read("stsincludesubdomains", parse_strict_flag, False)
    preload = options.read("stspreload", parse_strict_flag, False)
    options.read("forcestsheader", parse_strict_flag, True)
    parts = [f"max-age={age}", *["includeSubDomains"] * subdomains, *["preload"] * preload]
    return [("Strict-Transport-Security", "; ".join(parts))] if age else []


def _handle(configured: Headers, context: RequestContext, plan: RequestPlan) -> None:
    for name, value in configured.request:
        set_field(plan.request_fields, name, *[value] * bool(value))
    for name, value in configured.response:
        set_field(plan.response_fields, name, *[value] * bool(value))
    if configured.cors is not None:
        if is_preflight(context.request):
            plan.answer = preflight_reply(configured.cors, context.request)
        else:
            plan.response_fields += response_fields(configured.cors, context.request)


KIND = MiddlewareKind(("headers",), Headers, _parse, stateless(_handle), guards=True, harmless=_HARMLESS)
