"""`stripprefix`: removes the first prefix of a list that the path begins with. Pure."""

from dataclasses import dataclass

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.path_rewrite import strip_prefix
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import list_of, parse_path, parse_strict_flag


@dataclass(frozen=True, slots=True)
class StripPrefix(Middleware):
    prefixes: tuple[str, ...]


def _parse(options: MiddlewareOptions) -> StripPrefix:
    options.read("forceslash", parse_strict_flag, True)  # Traefik v2's; a path always has one here
    return StripPrefix(options.read("prefixes", list_of(parse_path)))


def _handle(configured: StripPrefix, _context: RequestContext, plan: RequestPlan) -> None:
    for prefix in configured.prefixes:
        if plan.path.startswith(prefix):
            strip_prefix(prefix, plan)
            return


KIND = MiddlewareKind(("stripprefix",), StripPrefix, _parse, stateless(_handle))
