"""The options of HTTP services in labels: option → parser of its value. Pure.

A parser returns the changes of an `HttpService`, {field: value}. `check.NAME` is a field of the service's
`HealthCheck`. Raises ValueError.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mesh.balance.policies import Policy
from mesh.http.config.model import BAD_STATUSES, NEVER_SET, HashBy, HttpService, Scheme, StickyCookie
from mesh.labels.values import (
    FIELD_NAME,
    FIELD_VALUE,
    number,
    one_of,
    parse_http_flag,
    parse_percent,
    parse_port_number,
    parse_statuses,
    split_words,
)
from mesh.parsing import parse_duration

Changes = dict[str, Any]
ChangeParser = Callable[[str], Changes]
_STATUS_SETS = {"gateway": BAD_STATUSES, "5xx": frozenset(range(500, 600)), "none": frozenset[int]()}
_parse_scheme = one_of({one.value: one for one in Scheme})


def changed_service(service: HttpService, changes: Mapping[str, Any]) -> HttpService:
    """The service with these changes."""
    of_check = {key.removeprefix("check."): one for key, one in changes.items() if key.startswith("check.")}
    if of_check:
        return replace(service, check=replace(service.check, **of_check))
    return replace(service, **changes)


def setting(name: str, parse: Callable[[str], object]) -> ChangeParser:
    """A parser that sets one field."""
    return lambda text: {name: parse(text)}


def _parse_mesh_cookie(text: str) -> StickyCookie:
    return StickyCookie(_parse_cookie_name(text))


def _parse_cookie_name(text: str) -> str:
    if FIELD_NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no name of a cookie")
    return text


def _parse_cookie_text(text: str) -> str:
    if re.fullmatch(r"[!-:<-~]{1,256}", text) is None:  # no space, no ";"
        raise ValueError(f"{text!r} cannot be in a cookie")
    return text


def _parse_stacks(text: str) -> tuple[str, ...]:
    """Names of stacks, `*` for all. Case matters, as it does to Docker."""
    return split_words(text)


def _parse_statuses(text: str) -> frozenset[int]:
    """`gateway`, `5xx`, `none`, or statuses and ranges of them by commas: `500,502-504,429`."""
    known = _STATUS_SETS.get(text.lower())
    return parse_statuses(text) if known is None else known


def _parse_hash_by(text: str) -> Changes:
    """`client`, `header:NAME`, `cookie:NAME`. It is a policy, so it sets that."""
    kind, _, name = text.partition(":")
    if kind.lower() == "client" and not name:
        by = HashBy()
    elif kind.lower() == "header" and FIELD_NAME.fullmatch(name):
        by = HashBy(header=name.lower())
    elif kind.lower() == "cookie" and FIELD_NAME.fullmatch(name):
        by = HashBy(cookie=name)
    else:
        raise ValueError(f"{text[:80]!r} is not client, header:NAME or cookie:NAME")
    return {"hash_by": by, "policy": Policy.SOURCE_HASH}


# --- health checks ---

CHECK_SECONDS_MIN = 0.1  # between two checks of one endpoint: more often would only be load
CHECK_HEADERS = "healthcheck.headers."
CHECK_HEADERS_MAX = 32


def _parse_check_interval(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < CHECK_SECONDS_MIN:
        raise ValueError(f"{text!r} is less than 100ms")
    return seconds


def _parse_check_path(text: str) -> str:
    if re.fullmatch(r"/[!-~]{0,1023}", text) is None or "#" in text:
        raise ValueError(f"{text[:80]!r} is no path")
    return text


def _parse_mesh_check(text: str) -> Changes:
    """A path, `grpc` or `off`."""
    if text in ("grpc", "off"):
        return {"check.path": "", "check.grpc": text == "grpc"}
    return {"check.path": _parse_check_path(text), "check.grpc": False}


def _parse_check_mode(text: str) -> bool:
    return one_of({"http": False, "grpc": True})(text)


def _parse_check_host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", text) is None:
        raise ValueError(f"{text[:80]!r} is no name of a host")
    return text


def check_header(name: str, service: HttpService) -> ChangeParser:
    def read(text: str) -> Changes:
        if (
            FIELD_NAME.fullmatch(name) is None
            or name.lower() in NEVER_SET
            or FIELD_VALUE.fullmatch(text) is None
        ):
            raise ValueError(f"{name[:80]!r} is no field that can be set so")
        if len(service.check.headers) == CHECK_HEADERS_MAX:
            raise ValueError(f"more than {CHECK_HEADERS_MAX} fields")
        return {"check.headers": (*service.check.headers, (name, text))}

    return read


_TRAEFIK_POLICIES = {
    "wrr": Policy.ROUND_ROBIN,
    "p2c": Policy.LEAST_CONN,
    "hrw": Policy.SOURCE_HASH,
    "leasttime": Policy.P2C,
}
TRAEFIK_PASSIVE: dict[str, Any] = {"outlier_failures": 1, "outlier_statuses": _STATUS_SETS["5xx"]}
_CHECK_METHODS = {method.lower(): method for method in ("GET", "HEAD", "OPTIONS", "POST")}
_POLICIES = {policy.value: policy for policy in Policy}

TRAEFIK_SERVICE: Mapping[str, ChangeParser] = {
    "server.port": setting("port", parse_port_number),
    "server.scheme": setting("scheme", _parse_scheme),
    "passhostheader": setting("pass_host", parse_http_flag),
    "strategy": setting("policy", one_of(_TRAEFIK_POLICIES)),
    "healthcheck.path": setting("check.path", _parse_check_path),
    "healthcheck.port": setting("check.port", parse_port_number),
    "healthcheck.interval": setting("check.interval", _parse_check_interval),
    "healthcheck.unhealthyinterval": setting("check.unwell_interval", _parse_check_interval),
    "healthcheck.timeout": setting("check.timeout", parse_duration),
    "healthcheck.scheme": setting("check.scheme", _parse_scheme),
    "healthcheck.hostname": setting("check.host", _parse_check_host),
    "healthcheck.method": setting("check.method", one_of(_CHECK_METHODS)),
    "healthcheck.status": setting("check.statuses", _parse_statuses),
    "healthcheck.followredirects": setting("check.follow", parse_http_flag),
    "healthcheck.mode": setting("check.grpc", _parse_check_mode),
    "passivehealthcheck.maxfailedattempts": setting("outlier_failures", number(1, 1000)),
    "passivehealthcheck.failurewindow": setting("outlier_time", parse_duration),
}
UNSUPPORTED_OF_SERVICES = {
    "server": "weight and url of servers are not supported: tasks are what Swarm runs",
    "responseforwarding": "responses are always passed on at once",
    "serverstransport": "transports are not supported",
}
TRAEFIK_COOKIE: Mapping[str, ChangeParser] = {
    "name": setting("name", _parse_cookie_name),
    "secure": setting("secure", parse_http_flag),
    "httponly": setting("http_only", parse_http_flag),
    "samesite": setting("same_site", one_of({"none": "None", "lax": "Lax", "strict": "Strict"})),
    "path": setting("path", _parse_cookie_text),
    "domain": setting("domain", _parse_cookie_text),
    "maxage": setting("max_age", number(0, 10**9)),
}
MESH_SERVICE: Mapping[str, ChangeParser] = {
    "port": setting("port", parse_port_number),
    "scheme": setting("scheme", _parse_scheme),
    "tls_verify": setting("tls_verify", parse_http_flag),
    "tls_name": setting("tls_name", str.lower),
    "tls_ca": setting("tls_ca", str),
    "network": setting("network", str),
    "policy": setting("policy", one_of(_POLICIES)),
    "hash_by": _parse_hash_by,
    "pass_host": setting("pass_host", parse_http_flag),
    "response_timeout": setting("response_timeout", parse_duration),
    "try_timeout": setting("try_timeout", parse_duration),
    "timeout": setting("timeout", parse_duration),
    "attempts": setting("attempts", number(1, 10)),
    "retry_budget": setting("retry_budget", parse_percent),
    "retry_min": setting("retry_min", number(0, 1000)),
    "max_requests": setting("max_requests", number(0, 10**6)),
    "health": _parse_mesh_check,
    "health_port": setting("check.port", parse_port_number),
    "health_interval": setting("check.interval", _parse_check_interval),
    "health_timeout": setting("check.timeout", parse_duration),
    "health_status": setting("check.statuses", _parse_statuses),
    "health_host": setting("check.host", _parse_check_host),
    "outlier_failures": setting("outlier_failures", number(0, 1000)),
    "outlier_statuses": setting("outlier_statuses", _parse_statuses),
    "outlier_time": setting("outlier_time", parse_duration),
    "outlier_share": setting("outlier_share", parse_percent),
    "mirror": setting("mirror", str.lower),
    "mirror_percent": setting("mirror_percent", parse_percent),
    "canary_of": setting("canary_of", str.lower),
    "canary": setting("weight", parse_percent),
    "canary_from": setting("canary_from", _parse_stacks),
    "mirror_from": setting("mirror_from", _parse_stacks),
    "sticky": setting("sticky", _parse_mesh_cookie),
}
