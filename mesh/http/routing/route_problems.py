"""What is wrong with labels, routes and endpoints, for people."""

from collections.abc import Iterator

from mesh.errors import Problem
from mesh.http.config.model import HttpRoute
from mesh.http.middleware.kinds.errors import ErrorPages
from mesh.http.middleware.kinds.forward_auth import ForwardAuth
from mesh.http.routing.served_routes import ServedRoutes
from mesh.http.upstream.external_client import ExternalClient


def route_problems(routes: ServedRoutes, external: ExternalClient | None) -> Iterator[Problem]:
    """`external`: asks authorization services outside the Swarm; None: nobody there is asked."""
    yield from routes.label_problems()
    yield from _failing_endpoints(routes)
    yield from _refused_hosts(routes)
    for route in routes.open_routes():
        yield from _middleware_problems(routes, route, external)
        yield from _entry_point_problems(routes, route)


def _failing_endpoints(routes: ServedRoutes) -> Iterator[Problem]:
    for target, endpoint, last in routes.failing_endpoints():
        yield Problem(
            routes.owner_name(target.http.owner),
            target.http.name,
            f"task at {endpoint} does not pass its check ({last or 'not yet checked'})",
        )


def _refused_hosts(routes: ServedRoutes) -> Iterator[Problem]:
    for route, refusal in routes.refusals():
        where = f"traefik.http.routers.{route.name}.rule"
        yield Problem(routes.owner_name(route.owner), where, str(refusal))


def _middleware_problems(
    routes: ServedRoutes, route: HttpRoute, external: ExternalClient | None
) -> Iterator[Problem]:
    owner, where = routes.owner_name(route.owner), f"traefik.http.routers.{route.name}.middlewares"
    for one in route.middlewares:
        if isinstance(one, ForwardAuth) and (why := _refusal(one, external)):
            yield Problem(owner, where, f"forwardauth {one.url}: {why}")
        if isinstance(one, ErrorPages) and not routes.has_service(one.service):
            yield Problem(owner, where, f"there is no service {one.service!r} for error pages")


def _refusal(auth: ForwardAuth, external: ExternalClient | None) -> str:
    """Why we do not connect to this authorization service; "": we do."""
    if external is None or not auth.may_be_external:
        return ""
    return external.internal.refusal(auth.host)


def _entry_point_problems(routes: ServedRoutes, route: HttpRoute) -> Iterator[Problem]:
    where = f"traefik.http.routers.{route.name}.entrypoints"
    for name in route.entrypoints:
        if name not in routes.entry_point_names:
            known = ", ".join(routes.entry_point_names)
            why = f"there is no entry point {name!r} (known are {known})"
            yield Problem(routes.owner_name(route.owner), where, why)
