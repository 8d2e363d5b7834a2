"""`buffering`: limits the size of a request's body. Nothing is buffered for it. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_count

_HARMLESS = ("maxresponsebodybytes", "memrequestbodybytes", "memresponsebodybytes", "retryexpression")


@dataclass(frozen=True, slots=True)
class BodyLimit(Middleware):
    most: int  # bytes


def _parse(options: MiddlewareOptions) -> BodyLimit | None:
    most = options.read("maxrequestbodybytes", parse_count, 0)
    return BodyLimit(most) if most else None


def _handle(configured: BodyLimit, _context: RequestContext, plan: RequestPlan) -> None:
    plan.body_max = configured.most


KIND = MiddlewareKind(("buffering",), BodyLimit, _parse, stateless(_handle), guards=True, harmless=_HARMLESS)
