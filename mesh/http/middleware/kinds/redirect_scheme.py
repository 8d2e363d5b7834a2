"""`redirectscheme`: redirects requests to another scheme or port. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import LabelError, MiddlewareOptions
from mesh.http.middleware.redirect import DEFAULT_PORTS, query_suffix, redirect
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_positive, parse_strict_flag
from mesh.parsing import PORT_MAX, is_int


@dataclass(frozen=True, slots=True)
class RedirectScheme(Middleware):
    """To this scheme, http or https. `port` "": the scheme's own."""

    scheme: str
    permanent: bool = False
    port: str = ""


def _parse(options: MiddlewareOptions) -> RedirectScheme:
    scheme = options.read("scheme", str.lower)
    if scheme not in DEFAULT_PORTS:
        raise LabelError("scheme", f"{scheme!r} is neither http nor https")
    port = options.read("port", lambda text: str(parse_positive(text)), "")
    return RedirectScheme(scheme, options.read("permanent", parse_strict_flag, False), port)


def _handle(configured: RedirectScheme, context: RequestContext, plan: RequestPlan) -> None:
    host = context.authority
    name, colon, port = host.rpartition(":")
    if colon and is_int(port, 0, PORT_MAX):
        host, port = name, port
    else:
        port = DEFAULT_PORTS[context.scheme]
    wanted = configured.port or DEFAULT_PORTS[configured.scheme]
    if context.scheme == configured.scheme and (not configured.port or port == wanted):
        return
    suffix = "" if wanted == DEFAULT_PORTS[configured.scheme] else f":{wanted}"
    location = f"{configured.scheme}://{host}{suffix}{plan.path}{query_suffix(plan)}"
    redirect(location, configured.permanent, context.request.method, plan)


KIND = MiddlewareKind(("redirectscheme",), RedirectScheme, _parse, stateless(_handle))
