"""`addprefix`: puts a prefix before the path. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.path_rewrite import set_path
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_path


@dataclass(frozen=True, slots=True)
class AddPrefix(Middleware):
    prefix: str


def _parse(options: MiddlewareOptions) -> AddPrefix:
    return AddPrefix(options.read("prefix", parse_path))


def _handle(configured: AddPrefix, _context: RequestContext, plan: RequestPlan) -> None:
    set_path(configured.prefix + plan.path, plan)


KIND = MiddlewareKind(("addprefix",), AddPrefix, _parse, stateless(_handle))
