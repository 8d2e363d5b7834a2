"""`replacepathregex`: replaces what an expression matches in the path. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.config.regex import Expression
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.path_rewrite import replace_path
from mesh.http.request_plan import RequestContext, RequestPlan


@dataclass(frozen=True, slots=True)
class ReplacePathRegex(Middleware):
    expression: Expression
    replacement: str


def _parse(options: MiddlewareOptions) -> ReplacePathRegex:
    return ReplacePathRegex(options.read("regex", Expression), options.read("replacement", str))


def _handle(configured: ReplacePathRegex, _context: RequestContext, plan: RequestPlan) -> None:
    path = configured.expression.replaced(plan.path, configured.replacement)
    if path is not None and path.isascii() and path.isprintable() and " " not in path:
        replace_path(path, plan)


KIND = MiddlewareKind(("replacepathregex",), ReplacePathRegex, _parse, stateless(_handle))
