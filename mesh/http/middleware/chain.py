"""The handlers of a route's middlewares, run in order: each changes the request's plan or answers it. Pure.

`build_handlers` makes the handlers, once for each route. `run_handlers` runs those that have not run yet. A
handler that has to wait raises `NeedsPasswordCheck` or `NeedsAuthRequest`; the runner does what is needed and
calls `run_handlers` again.
"""

from collections.abc import Sequence

from mesh.http.codec.path_check import check_rewritten
from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.middleware.table import kind_of
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan


def build_handlers(middlewares: Sequence[Middleware]) -> tuple[MiddlewareHandler, ...]:
    """In order. Handlers that count something keep their counts as long as they live."""
    return tuple(kind_of(one).build_handler(one) for one in middlewares)


def run_handlers(handlers: Sequence[MiddlewareHandler], context: RequestContext, plan: RequestPlan) -> None:
    """Run the handlers that are left, until one answers the request. What earlier ones set in the response is
    set in that answer too.

    Raises NeedsPasswordCheck: call `verify`, then this again. Raises NeedsAuthRequest: ask the service, call
    `apply_verdict`, count the handler as run, then call this again."""
    while plan.answer is None and plan.next_handler < len(handlers):
        path = plan.path
        handlers[plan.next_handler](context, plan)
        plan.next_handler += 1
        if plan.path is not path and plan.answer is None and check_rewritten(plan.path):
            # `/api../x` without its prefix `/api` is `/../x`: not the path that the router's rule has
            # matched.
            plan.refuse(HttpFault.BAD_PATH, context.request_id)
