"""The table of all kinds of middlewares: one line for each file in `kinds`. Pure.

Whoever reads labels, builds the handlers of a route or the filters of a response finds the kind here.
"""

from collections.abc import Mapping
from typing import Any

from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import MiddlewareKind
from mesh.http.middleware.kinds import (
    add_prefix,
    basic_auth,
    buffering,
    chain,
    compress,
    content_type,
    deny,
    errors,
    forward_auth,
    headers,
    in_flight_req,
    ip_allow_list,
    rate_limit,
    redirect_regex,
    redirect_scheme,
    replace_path,
    replace_path_regex,
    retry,
    strip_prefix,
    strip_prefix_regex,
)
from mesh.http.middleware.kinds.chain import Chain
from mesh.http.middleware.options import LabelError, MiddlewareOptions

KINDS: tuple[MiddlewareKind[Any], ...] = (
    # who may come in
    ip_allow_list.KIND,
    basic_auth.KIND,
    forward_auth.KIND,
    deny.KIND,
    # how much
    rate_limit.KIND,
    in_flight_req.KIND,
    buffering.KIND,
    retry.KIND,
    # redirects
    redirect_scheme.KIND,
    redirect_regex.KIND,
    # the path
    strip_prefix.KIND,
    strip_prefix_regex.KIND,
    add_prefix.KIND,
    replace_path.KIND,
    replace_path_regex.KIND,
    # fields, bodies
    headers.KIND,
    compress.KIND,
    content_type.KIND,
    errors.KIND,
    # others by name
    chain.KIND,
)

# Kinds of Traefik's that are not followed, and why. They keep nobody out: routers that name them are served
# without them.
NOT_FOLLOWED: Mapping[str, str] = {
    "circuitbreaker": "tasks that fail are left out, and limited by max_requests",
    "grpcweb": "gRPC-Web is passed on as it comes",
}

NOTHING = Chain(())  # a middleware that does nothing

BY_LABEL: Mapping[str, MiddlewareKind[Any]] = {label: kind for kind in KINDS for label in kind.labels}
_BY_MODEL: Mapping[type[Middleware], MiddlewareKind[Any]] = {kind.model: kind for kind in KINDS}


def kind_of(middleware: Middleware) -> MiddlewareKind[Any]:
    """The kind that this configuration is of."""
    return _BY_MODEL[type(middleware)]


def parse_middleware(label: str, options: Mapping[str, str]) -> tuple[Middleware, list[str]]:
    """The middleware of this kind (its name in labels), and the options that are not followed.

    A kind in NOT_FOLLOWED, or one whose options ask for nothing, becomes NOTHING. Raises LabelError."""
    kind = BY_LABEL.get(label)
    if kind is None and label in NOT_FOLLOWED:
        return NOTHING, []
    if kind is None:
        raise LabelError("", f"{label} is not supported (known are {', '.join(sorted(BY_LABEL))})")
    given = MiddlewareOptions(options)
    parsed = kind.parse(given)
    unused = given.unused()
    if kind.guards:
        for option in unused:
            if not option.lower().startswith(kind.harmless):
                raise LabelError(option, "unknown option, which may be what keeps others out")
    return NOTHING if parsed is None else parsed, unused
