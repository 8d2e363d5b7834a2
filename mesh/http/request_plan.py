"""What becomes of one request, as its route's middlewares decide it. Pure.

A `RequestPlan` has the target and the field lines that are sent on, the field lines of the response that
change, and the local reply if a middleware answers the request. Each `MiddlewareHandler` changes the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.http.config.matchers import Request
from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply, error_answer


@dataclass(slots=True)
class RequestPlan:
    """What becomes of one request. Fields to set are (name as written, value); the value None removes it."""

    path: str
    query: str
    request_fields: list[tuple[str, str | None]] = field(default_factory=list)
    response_fields: list[tuple[str, str | None]] = field(default_factory=list)
    next_handler: int = 0  # index of the first handler that has not run
    answer: LocalReply | None = None
    fault: HttpFault | None = None  # the reason for `answer`, if it is a refusal
    body_max: int = 0  # bytes of the request's body; 0: no limit
    attempts: int = 0  # 0: as the service says
    # Middlewares whose response filters are put around the client, the one nearest to the client first.
    filters: list[Middleware] = field(default_factory=list)
    on_end: list[Callable[[], None]] = field(default_factory=list)  # called when the request is over

    def refuse(self, fault: HttpFault, request_id: bytes) -> None:
        """Answer the request with the status and the text of this fault."""
        self.fault = fault
        self.answer = error_answer(fault, request_id)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request, as handlers see it."""

    request: Request
    scheme: str
    authority: str  # as the client wrote it
    request_id: bytes
    authorization: bytes | None
    now: float  # monotonic, seconds
    forwarded_for: tuple[str, ...] = ()  # addresses that trusted proxies name, the nearest last


MiddlewareHandler = Callable[[RequestContext, RequestPlan], None]


def set_field(fields: list[tuple[str, str | None]], name: str, *values: str) -> None:
    """Set a field to these values, whatever earlier middlewares set it to. Without values it is removed."""
    fields[:] = [one for one in fields if one[0].lower() != name.lower()]
    fields += [(name, value) for value in values] or [(name, None)]
