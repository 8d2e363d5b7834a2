"""What becomes of one request, as its route's middlewares decide it. Pure.

A `RequestPlan` has the target and field lines that go on, the field lines of the response that change, and
our own answer if there is one. Each middleware is a `Step` that changes the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.http.config import model
from mesh.http.config.matchers import Request
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply, error_answer


@dataclass(slots=True)
class RequestPlan:
    """What becomes of one request. Field names as they are to be written; None takes a field away."""

    path: str
    query: str
    request_fields: list[tuple[str, str | None]] = field(default_factory=list)
    response_fields: list[tuple[str, str | None]] = field(default_factory=list)
    taken: int = 0  # steps
    answer: LocalReply | None = None
    fault: HttpFault | None = None  # that `answer` stands for
    body_max: int = 0  # bytes; 0: no limit
    attempts: int = 0  # 0: as the service says
    # What is put around the client, the outermost first.
    around: list[model.Compress | model.ErrorPages] = field(default_factory=list)
    at_end: list[Callable[[], None]] = field(default_factory=list)  # when the request is over

    def refuse(self, fault: HttpFault, request_id: bytes) -> None:
        self.fault = fault
        self.answer = error_answer(fault, request_id)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request that is treated."""

    request: Request
    scheme: str
    authority: str  # as the client wrote it
    request_id: bytes
    authorization: bytes | None
    now: float
    forwarded_for: tuple[str, ...] = ()  # that trusted proxies name, the nearest last


Step = Callable[[RequestContext, RequestPlan], None]


def put(fields: list[tuple[str, str | None]], name: str, *values: str) -> None:
    """In place of what was to be set by that name; without values it is taken away."""
    fields[:] = [one for one in fields if one[0].lower() != name.lower()]
    fields += [(name, value) for value in values] or [(name, None)]


# --- redirects ---


# --- paths ---


# --- fields, bodies ---


# --- who may ---


# --- how much ---
