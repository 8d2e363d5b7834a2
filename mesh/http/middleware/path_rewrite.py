"""Changes of a request's path, for the kinds that rewrite it. Pure."""

from mesh.http.request_plan import RequestPlan


def set_path(path: str, plan: RequestPlan) -> None:
    """Send the request on with this path."""
    plan.path = path if path.startswith("/") else "/" + path


def replace_path(path: str, plan: RequestPlan) -> None:
    """As `set_path`; the application finds the client's path in X-Replaced-Path."""
    plan.request_fields.append(("X-Replaced-Path", plan.path))
    set_path(path, plan)


def strip_prefix(prefix: str, plan: RequestPlan) -> None:
    """Remove the prefix that the path begins with; the application finds it in X-Forwarded-Prefix."""
    plan.request_fields.append(("X-Forwarded-Prefix", prefix.rstrip("/") or "/"))
    set_path(plan.path[len(prefix) :], plan)
