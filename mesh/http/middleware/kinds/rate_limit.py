"""`ratelimit`: limits the requests per second of each client, on each node. Pure."""

from collections import OrderedDict
from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply
from mesh.http.middleware.client_key import BY_ADDRESS, ClientKeySource, client_key, parse_client_key_source
from mesh.http.middleware.kind import MiddlewareKind
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_count, parse_positive
from mesh.parsing import parse_duration

CLIENTS_MAX = 65_536  # that one limit remembers; the one not seen for the longest time is forgotten first


@dataclass(frozen=True, slots=True)
class RateLimit(Middleware):
    average: float  # requests per second
    burst: int = 1
    source: ClientKeySource = BY_ADDRESS

    @property
    def uses_forwarded_address(self) -> bool:
        return self.source.address.is_set


def _parse(options: MiddlewareOptions) -> RateLimit | None:
    """None: an average of 0 is no limit."""
    period = options.read("period", parse_duration, 1.0)
    average, burst = options.read("average", parse_count, 0), options.read("burst", parse_positive, 1)
    source = parse_client_key_source(options, BY_ADDRESS)
    return RateLimit(average / period, burst, source) if average else None


class RateLimiter:
    """The handler: a token bucket for each client."""

    def __init__(self, configured: RateLimit) -> None:
        self._configured = configured
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → tokens, at what time

    def __call__(self, context: RequestContext, plan: RequestPlan) -> None:
        limit = self._configured
        client = client_key(limit.source, context)
        tokens, since = self._buckets.pop(client, (float(limit.burst), context.now))
        tokens = min(float(limit.burst), tokens + (context.now - since) * limit.average)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, context.now)
        if len(self._buckets) > CLIENTS_MAX:
            self._buckets.popitem(last=False)
        if not allowed:
            plan.refuse(HttpFault.TOO_MANY_REQUESTS, context.request_id)
            assert plan.answer is not None
            wait = b"%d" % max(1, round((1 - tokens) / limit.average))
            plan.answer = LocalReply(429, ((b"Retry-After", wait), *plan.answer.fields), plan.answer.body)


KIND = MiddlewareKind(("ratelimit",), RateLimit, _parse, RateLimiter, guards=True)
