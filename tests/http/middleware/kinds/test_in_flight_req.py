"""`inflightreq`: how many requests of one client may be in flight at once."""

from mesh.http.faults import HttpFault
from mesh.http.middleware.chain import build_handlers
from mesh.http.middleware.kinds.in_flight_req import InFlightReq
from mesh.http.request_plan import RequestPlan
from tests.support.middleware_runs import context_of, run_all


def test_requests_in_flight_of_one_client_are_limited() -> None:
    handlers = build_handlers([InFlightReq(1)])

    def plan(client: str) -> RequestPlan:
        return run_all(handlers, context_of(client=client))

    first = plan("a")
    assert first.fault is None
    refused = plan("a")
    assert refused.fault is HttpFault.TOO_MANY_REQUESTS
    assert refused.on_end == []  # what was not counted is not given back
    assert plan("b").fault is None
    (on_end,) = first.on_end
    on_end()
    assert plan("a").fault is None
