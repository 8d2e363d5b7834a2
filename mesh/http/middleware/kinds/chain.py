"""`chain`: a list of other middlewares. The reference resolver puts these in its place. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.request_plan import MiddlewareHandler
from mesh.labels.values import parse_middleware_names


@dataclass(frozen=True, slots=True)
class Chain(Middleware):
    names: tuple[str, ...]  # of others, in order; none: it does nothing


def _parse(options: MiddlewareOptions) -> Chain:
    return Chain(options.read("middlewares", parse_middleware_names))


def _build_handler(_configured: Chain) -> MiddlewareHandler:
    raise ValueError("a chain that was not resolved")


KIND = MiddlewareKind(("chain",), Chain, _parse, _build_handler, guards=True)
