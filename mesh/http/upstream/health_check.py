"""Active checks of an HTTP service's endpoints: what is asked, and what the answer says. Pure.

A redirect is followed as far as it leads to the same endpoint. Elsewhere it is the answer: what another host
says is nothing about this one. A gRPC server is asked as grpc.health.v1 has it, about all of its services.
"""

from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from mesh.balance.health_state import WELL_STATUSES, Pulse, Result
from mesh.balance.policies import Endpoint
from mesh.http.codec.h1_head import ResponseHead
from mesh.http.config.model import HealthCheck

REDIRECTS_MAX = 5  # of one check
DOUBT_SECONDS = 1.0  # between checks of an endpoint that may be about to change sides
_REDIRECTS = (301, 302, 303, 307, 308)
_GRPC_PATH = "/grpc.health.v1.Health/Check"
_EMPTY_MESSAGE = bytes(5)  # of no bytes, not compressed
_SERVING = b"\0\0\0\0\2\x08\1"  # field 1, `status`, is SERVING


@dataclass(frozen=True, slots=True)
class HealthRequest:
    """A request, but for where it goes."""

    method: bytes
    path: bytes
    lines: bytes
    body: bytes = b""


def question(check: HealthCheck, endpoint: Endpoint, path: str = "") -> HealthRequest:
    """`path`: where a redirect leads to."""
    fields = [("Host", _host(check, endpoint)), ("User-Agent", "mesh-probe"), *check.headers]
    body = b""
    if check.grpc:
        body = _EMPTY_MESSAGE
        grpc = (("Content-Type", "application/grpc"), ("TE", "trailers"), ("Content-Length", str(len(body))))
        fields += grpc
    elif check.method == "POST":
        fields.append(("Content-Length", "0"))
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in fields)
    method = "POST" if check.grpc else check.method
    return HealthRequest(
        method.encode(), (path or (_GRPC_PATH if check.grpc else check.path)).encode(), lines, body
    )


def verdict(check: HealthCheck, head: ResponseHead, body: bytes) -> Result:
    if check.grpc:
        well = head.status == 200 and body == _SERVING
    else:
        well = head.status in (check.statuses or WELL_STATUSES)
    return Result.WELL if well else Result.STATUS


def onward(check: HealthCheck, endpoint: Endpoint, path: str, head: ResponseHead) -> str:
    """Where a redirect leads to on the same endpoint; "" where there is nothing to follow."""
    location = (head.fields.get(b"location") or b"").decode("latin-1")
    if check.grpc or not check.follow or head.status not in _REDIRECTS or not location:
        return ""
    base = f"http://{_host(check, endpoint)}{path}"
    try:
        to = urlsplit(urljoin(base, location))
    except ValueError:  # it is no URL
        return ""
    if (to.scheme, to.netloc) != ("http", _host(check, endpoint)):
        return ""
    target = (to.path or "/") + (f"?{to.query}" if to.query else "")
    return target if target.isascii() and target.isprintable() and " " not in target else ""


def pause(check: HealthCheck, pulse: Pulse) -> float:
    """Seconds until the next one."""
    if pulse.row or pulse.new:
        return min(DOUBT_SECONDS, check.interval)
    return check.interval if pulse.well else check.unwell_interval or check.interval


def _host(check: HealthCheck, endpoint: Endpoint) -> str:
    return check.host or f"{endpoint.address}:{check.port or endpoint.port}"
