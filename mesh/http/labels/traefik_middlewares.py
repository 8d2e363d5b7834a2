"""Middlewares from `traefik.http.middlewares.*`. Pure."""

from mesh.http.config.model import Middleware
from mesh.http.labels.sorted_labels import SortedLabels
from mesh.http.middleware.options import LabelError
from mesh.http.middleware.table import NOT_FOLLOWED, parse_middleware


def read_middlewares(labels: SortedLabels) -> dict[str, Middleware]:
    """By name. The names of those that cannot be made are in `labels.faulty`."""
    found: dict[str, Middleware] = {}
    for name, kinds in labels.middlewares.items():
        where = f"traefik.http.middlewares.{name}"
        if len(kinds) > 1:
            labels.fault(where, f"is of several kinds: {', '.join(sorted(kinds))}; ignored")
            labels.faulty.add(("middleware", name))
            continue
        ((kind, options),) = kinds.items()
        try:
            found[name], ignored = parse_middleware(kind, options)
        except LabelError as error:
            labels.fault(f"{where}.{kind}{error.option}", f"{error}; the middleware is left out")
            labels.faulty.add(("middleware", name))
            continue
        for option in ignored:
            labels.fault(f"{where}.{kind}.{option}", "is not supported; ignored")
        if kind in NOT_FOLLOWED:
            labels.fault(
                f"{where}.{kind}", f"is not followed: {NOT_FOLLOWED[kind]}; routers are served without"
            )
    return found
