"""The answer of the kinds that redirect. Pure."""

from mesh.http.local_reply import LocalReply
from mesh.http.request_plan import RequestPlan

DEFAULT_PORTS = {"http": "80", "https": "443"}


def redirect(location: str, permanent: bool, method: str, plan: RequestPlan) -> None:
    """Answer with a redirect. 308 and 307 keep the method (RFC 9110 section 15.4)."""
    safe = method in ("GET", "HEAD")
    status = (301 if safe else 308) if permanent else (302 if safe else 307)
    plan.answer = LocalReply(status, ((b"Location", location.encode("ascii", "ignore")),))


def query_suffix(plan: RequestPlan) -> str:
    """The query with its question mark, or nothing."""
    return f"?{plan.query}" if plan.query else ""
