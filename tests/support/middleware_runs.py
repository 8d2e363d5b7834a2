"""Runs the handlers of a route at once: passwords are compared here, and the verdict is given."""

from collections.abc import Sequence

from mesh.http.codec.h1_head import Fields, RequestFields, ResponseHead
from mesh.http.middleware.chain import run_handlers
from mesh.http.middleware.kinds.basic_auth import NeedsPasswordCheck
from mesh.http.middleware.kinds.forward_auth import NeedsAuthRequest, apply_verdict, auth_request_fields
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan

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
