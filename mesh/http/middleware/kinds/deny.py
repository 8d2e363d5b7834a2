"""What a closed route has in place of its middlewares: it refuses all requests. No label makes one. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.request_plan import RequestContext, RequestPlan


@dataclass(frozen=True, slots=True)
class Deny(Middleware):
    pass


def _parse(_options: MiddlewareOptions) -> Deny:
    return Deny()


def _handle(_configured: Deny, context: RequestContext, plan: RequestPlan) -> None:
    plan.refuse(HttpFault.NO_ROUTE, context.request_id)


KIND = MiddlewareKind((), Deny, _parse, stateless(_handle), guards=True)
