"""`stripprefixregex`: removes what an expression matches at the beginning of the path. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.config.regex import Expression
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.path_rewrite import strip_prefix
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import list_of


@dataclass(frozen=True, slots=True)
class StripPrefixRegex(Middleware):
    """The first expression that matches counts."""

    expressions: tuple[Expression, ...]


def _parse(options: MiddlewareOptions) -> StripPrefixRegex:
    return StripPrefixRegex(options.read("regex", list_of(Expression)))


def _handle(configured: StripPrefixRegex, _context: RequestContext, plan: RequestPlan) -> None:
    for expression in configured.expressions:
        prefix = expression.first(plan.path)
        if prefix and plan.path.startswith(prefix):
            strip_prefix(prefix, plan)
            return


KIND = MiddlewareKind(("stripprefixregex",), StripPrefixRegex, _parse, stateless(_handle))
