"""`redirectregex`: redirects requests whose URL an expression matches. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.config.regex import Expression
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.redirect import query_suffix, redirect
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_field_value, parse_strict_flag


@dataclass(frozen=True, slots=True)
class RedirectRegex(Middleware):
    """The expression is tried on the whole URL."""

    expression: Expression
    replacement: str
    permanent: bool = False


def _parse(options: MiddlewareOptions) -> RedirectRegex:
    return RedirectRegex(
        options.read("regex", Expression),
        options.read("replacement", parse_field_value),
        options.read("permanent", parse_strict_flag, False),
    )


def _handle(configured: RedirectRegex, context: RequestContext, plan: RequestPlan) -> None:
    url = f"{context.scheme}://{context.authority}{plan.path}{query_suffix(plan)}"
    location = configured.expression.replaced(url, configured.replacement)
    if location is not None and location != url:
        redirect(location, configured.permanent, context.request.method, plan)


KIND = MiddlewareKind(("redirectregex",), RedirectRegex, _parse, stateless(_handle))
