"""`retry`: how many further tasks are tried when one fails. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_positive


@dataclass(frozen=True, slots=True)
class Retry(Middleware):
    attempts: int  # besides the first


def _parse(options: MiddlewareOptions) -> Retry:
    return Retry(options.read("attempts", parse_positive))


def _handle(configured: Retry, _context: RequestContext, plan: RequestPlan) -> None:
    plan.attempts = configured.attempts + 1


KIND = MiddlewareKind(("retry",), Retry, _parse, stateless(_handle))
