"""`replacepath`: sends requests on with another path. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.path_rewrite import replace_path
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_path


@dataclass(frozen=True, slots=True)
class ReplacePath(Middleware):
    path: str


def _parse(options: MiddlewareOptions) -> ReplacePath:
    return ReplacePath(options.read("path", parse_path))


def _handle(configured: ReplacePath, _context: RequestContext, plan: RequestPlan) -> None:
    replace_path(configured.path, plan)


KIND = MiddlewareKind(("replacepath",), ReplacePath, _parse, stateless(_handle))
