"""The handlers of a route: in which order they run, and what ends them."""

import pytest

from mesh.http.faults import HttpFault
from mesh.http.middleware.chain import build_handlers
from mesh.http.middleware.kinds.add_prefix import AddPrefix
from mesh.http.middleware.kinds.buffering import BodyLimit
from mesh.http.middleware.kinds.chain import Chain
from mesh.http.middleware.kinds.compress import Compress
from mesh.http.middleware.kinds.deny import Deny
from mesh.http.middleware.kinds.errors import ErrorPages
from mesh.http.middleware.kinds.headers import Headers
from mesh.http.middleware.kinds.ip_allow_list import IpAllowList
from mesh.http.middleware.kinds.redirect_scheme import RedirectScheme
from mesh.http.middleware.kinds.retry import Retry
from mesh.http.middleware.kinds.strip_prefix import StripPrefix
from tests.support.middleware_runs import plan_of


def test_handlers_run_in_order() -> None:
    assert plan_of(AddPrefix("/x"), StripPrefix(("/x/a",))).path == "/b"


def test_the_first_answer_ends_it() -> None:
    plan = plan_of(Headers(response=(("X-A", "1"),)), IpAllowList(()), RedirectScheme("https"))
    assert plan.fault is HttpFault.FORBIDDEN
    assert plan.response_fields == [("X-A", "1")]  # set in the answer too


def test_a_rewritten_path_that_leads_elsewhere_is_refused() -> None:
    assert plan_of(StripPrefix(("/api",)), path="/api../x").fault is HttpFault.BAD_PATH


def test_a_closed_route_refuses_everybody() -> None:
    assert plan_of(Deny()).fault is HttpFault.NO_ROUTE


def test_limits_and_attempts_are_for_the_exchange() -> None:
    plan = plan_of(BodyLimit(100), Retry(2))
    assert (plan.body_max, plan.attempts) == (100, 3)


def test_response_filters_keep_the_order_of_their_middlewares() -> None:
    pages = ErrorPages(((500, 599),), "pages", "/")
    assert plan_of(Compress(), pages).filters == [Compress(), pages]


def test_a_client_may_forbid_compression() -> None:
    assert plan_of(Compress(), fields={"cache-control": ["max-age=0", "No-Transform"]}).filters == []


def test_a_chain_that_was_not_resolved_has_no_handlers() -> None:
    with pytest.raises(ValueError, match="not resolved"):
        build_handlers([Chain(("a",))])
