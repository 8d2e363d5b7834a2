"""What the table of middlewares knows of one kind. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.config.matchers import Request
from mesh.http.config.model import Middleware
from mesh.http.interfaces import Downstream
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.response_filter import ResponseFilter
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan
from mesh.net.limits.semaphore import Semaphore

M = TypeVar("M", bound=Middleware)
# Ask a service for a path, with these field lines; the callback gets the head (None: no response) and the
# body.
AskService = Callable[[bytes, bytes, Callable[[ResponseHead | None, bytes], None]], None]


class FilterContext(Protocol):
    """What a response filter may ask of the exchange that it is for."""

    client: Downstream  # the side that the filter is put around
    head: RequestHead
    request: Request
    compressors: Semaphore
    on_end: list[Callable[[], None]]

    @property
    def response_fields(self) -> Sequence[tuple[str, str | None]]:
        """The fields that middlewares set in the response."""
        ...

    def find_service(self, key: str) -> AskService | None:
        """Asks this HTTP service with GET, for the sake of the client. None: there is no such service."""
        ...

    def dismiss(self) -> None:
        """End the exchange with the endpoint; the client is still to be answered."""
        ...


@dataclass(frozen=True, slots=True)
class MiddlewareKind(Generic[M]):
    """One kind of middleware.

    `labels`: its names in labels, lower case. None: no label makes one. `model`: the class of its
    configuration, a frozen value. `parse`: options → configuration; None where the options ask for nothing.
    Raises LabelError. `build_handler`: configuration → what it does to a request. Made once for each route.
    `build_filter`: what it does to a response, if it does more than set fields. `guards`: it keeps somebody
    or something out. An option of it that is not known makes it faulty, for it would guard less than was
    meant. `harmless`: beginnings of options that are named and ignored all the same.
    """

    labels: tuple[str, ...]
    model: type[M]
    parse: Callable[[MiddlewareOptions], M | None]
    build_handler: Callable[[M], MiddlewareHandler]
    build_filter: Callable[[M, FilterContext], ResponseFilter] | None = None
    guards: bool = False
    harmless: tuple[str, ...] = ()


def stateless(
    handle: Callable[[M, RequestContext, RequestPlan], None],
) -> Callable[[M], MiddlewareHandler]:
    """For kinds whose handlers keep nothing between requests."""
    return lambda configured: partial(handle, configured)


def add_filter(configured: Any, _context: RequestContext, plan: RequestPlan) -> None:
    """The handler of a kind that only filters responses."""
    plan.filters.append(configured)
