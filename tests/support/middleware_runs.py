"""Runs the handlers of a route at once: passwords are compared here, and the verdict is given."""

from collections.abc import Sequence
from typing import Any

from mesh.http.codec.h1_head import Fields, RequestFields, ResponseHead
from mesh.http.config.model import Middleware
from mesh.http.middleware.chain import build_handlers, run_handlers
from mesh.http.middleware.kinds.basic_auth import NeedsPasswordCheck
from mesh.http.middleware.kinds.forward_auth import NeedsAuthRequest, apply_verdict, auth_request_fields
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan
from tests.support.http_requests import FakeRequest

SENT = b"Host: a.example\r\nX-User: root\r\n"  # of a request, as an endpoint gets it


def run_all(
    handlers: Sequence[MiddlewareHandler], context: RequestContext, verdict: ResponseHead | None = None
) -> RequestPlan:
    """The plan after all handlers. `verdict`: what every authorization service answers; None: nothing."""
    plan = RequestPlan(context.request.path, context.request.query)
    while True:
        try:
            run_handlers(handlers, context, plan)
        except NeedsPasswordCheck as needs:
            needs.verify()
        except NeedsAuthRequest as needs:
            lines = auth_request_fields(needs.configured, context, plan, SENT)
            assert RequestFields(Fields(lines)).length == 0
            apply_verdict(needs.configured, context, plan, SENT, verdict, b"")
            plan.next_handler += 1
        else:
            return plan


def context_of(
    *,
    path: str = "/a/b",
    query: str = "",
    method: str = "GET",
    host: str = "a.example",
    scheme: str = "http",
    authority: str = "a.example",
    client: str = "10.0.0.1",
    authorization: bytes | None = None,
    fields: dict[str, list[str]] | None = None,
    forwarded_for: tuple[str, ...] = (),
    now: float = 0.0,
) -> RequestContext:
    """A request, as handlers see it."""
    request = FakeRequest(host, path, method, query, client, fields or {})
    return RequestContext(request, scheme, authority, b"id", authorization, now, forwarded_for)


def plan_of(*middlewares: Middleware, **request: Any) -> RequestPlan:
    """What these middlewares make of a request."""
    return run_all(build_handlers(middlewares), context_of(**request))
