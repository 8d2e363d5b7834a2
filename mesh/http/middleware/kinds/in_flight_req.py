"""`inflightreq`: limits the requests of each client that are in flight at once, on each node. Pure."""

from dataclasses import dataclass
from functools import partial

from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.middleware.client_key import BY_ADDRESS, ClientKeySource, client_key, parse_client_key_source
from mesh.http.middleware.kind import MiddlewareKind
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_positive


@dataclass(frozen=True, slots=True)
class InFlightReq(Middleware):
    amount: int
    source: ClientKeySource = BY_ADDRESS

    @property
    def uses_forwarded_address(self) -> bool:
        return self.source.address.is_set


def _parse(options: MiddlewareOptions) -> InFlightReq:
    # Without a criterion Traefik counts by the requested host.
    source = parse_client_key_source(options, ClientKeySource(host=True))
    return InFlightReq(options.read("amount", parse_positive), source)


class InFlightLimiter:
    """The handler: the number of requests in flight of each client."""

    def __init__(self, configured: InFlightReq) -> None:
        self._amount = configured.amount
        self._source = configured.source
        self._in_flight: dict[str, int] = {}  # key → requests; none with 0

    def __call__(self, context: RequestContext, plan: RequestPlan) -> None:
        client = client_key(self._source, context)
        count = self._in_flight.get(client, 0)
        if count >= self._amount:
            plan.refuse(HttpFault.TOO_MANY_REQUESTS, context.request_id)
            return
        self._in_flight[client] = count + 1
        plan.on_end.append(partial(self._on_end, client))

    def _on_end(self, client: str) -> None:
        count = self._in_flight[client] - 1
        if count:
            self._in_flight[client] = count
        else:
            del self._in_flight[client]


KIND = MiddlewareKind(("inflightreq",), InFlightReq, _parse, InFlightLimiter, guards=True)
