"""The options of routers in labels: option → parser of its value into changes of a `Router`. Pure."""

import re
from collections.abc import Callable, Mapping

from mesh.http.config.matchers import Matcher
from mesh.http.config.rule_parser import read_rule
from mesh.http.labels.service_options import ChangeParser, Changes, setting
from mesh.labels.values import number, parse_entry_points, parse_http_flag, parse_middleware_names


def _clause(rule: str) -> tuple[str, Matcher]:
    return f"({rule})", read_rule(rule)


def _any_of(matcher: str) -> Callable[[str], tuple[str, Matcher]]:
    return lambda text: _clause(" || ".join(f"{matcher}(`{one.strip()}`)" for one in text.split(",")))


def _parse_acme(text: str) -> Changes:
    """A router whose certificate is issued is one with TLS."""
    return {"issued": True, "tls": True} if parse_http_flag(text) else {"issued": False}


TRAEFIK_ROUTER: Mapping[str, ChangeParser] = {
    "entrypoints": setting("entrypoints", parse_entry_points),
    "service": setting("service", str.lower),
    "middlewares": setting("middlewares", parse_middleware_names),
    "priority": setting("priority", number(1, 2**31)),
    "tls": setting("tls", parse_http_flag),
}
GUARDS = ("entrypoints", "middlewares")  # without them more clients would be let in
TLS_OPTIONS = ("default", "default@file", "default@swarm", "default@docker")  # none in particular
DOMAIN_OPTION = re.compile(r"tls\.domains\[([0-9]{1,3})\]\.(?:main|sans)")
HOST_NAME = re.compile(r"(?=.{1,253}$)(?:\*\.)?(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)")
CLAUSES: Mapping[str, Callable[[str], tuple[str, Matcher]]] = {  # what a request must be; all must hold
    "host": _any_of("Host"),
    "path": _any_of("PathPrefix"),
    "rule": _clause,
}
MESH_ROUTER: Mapping[str, ChangeParser] = {
    "entrypoints": setting("entrypoints", parse_entry_points),
    "middlewares": setting("middlewares", parse_middleware_names),
    "priority": setting("priority", number(1, 2**31)),
    "tls": setting("tls", parse_http_flag),
    "acme": _parse_acme,
}
OF_ONE_ROUTER = (
    *CLAUSES,
    "priority",
    "canary",
    "canary_of",
)  # what other routers of the service do not take over
