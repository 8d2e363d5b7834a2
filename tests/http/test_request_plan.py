"""Middlewares: what they make of a request, and when they answer themselves."""

import base64
from ipaddress import ip_network
from typing import Any

import pytest

from mesh.http.codec.proxy_headers import with_fields
from mesh.http.config import model
from mesh.http.config.htpasswd import matches
from mesh.http.config.regex import Expression
from mesh.http.faults import HttpFault
from mesh.http.middleware.chain import build_handlers
from mesh.http.middleware.client_key import ClientKeySource, IpStrategy
from mesh.http.middleware.kinds.add_prefix import AddPrefix
from mesh.http.middleware.kinds.basic_auth import BasicAuth
from mesh.http.middleware.kinds.headers import Headers
from mesh.http.middleware.kinds.in_flight_req import InFlightReq
from mesh.http.middleware.kinds.ip_allow_list import IpAllowList
from mesh.http.middleware.kinds.rate_limit import RateLimit
from mesh.http.middleware.kinds.redirect_regex import RedirectRegex
from mesh.http.middleware.kinds.redirect_scheme import RedirectScheme
from mesh.http.middleware.kinds.replace_path import ReplacePath
from mesh.http.middleware.kinds.replace_path_regex import ReplacePathRegex
from mesh.http.middleware.kinds.strip_prefix import StripPrefix
from mesh.http.middleware.kinds.strip_prefix_regex import StripPrefixRegex
from mesh.http.request_plan import RequestContext, RequestPlan
from tests.http.config.test_rule_parser import Asking
from tests.support.middleware_runs import run_all

MD5 = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"  # openssl passwd -apr1 -salt abcdefgh secret
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # secret
BCRYPT = "$2y$04$abcdefghijklmnopqrstuuSOFHCi5YK2ZsdAQMmdZMyYCp2iaTwIC"


def treated(
    *middlewares: model.Middleware,
    path: str = "/a/b",
    query: str = "",
    method: str = "GET",
    scheme: str = "http",
    authority: str = "a.example",
    client: str = "10.0.0.1",
    authorization: bytes | None = None,
    fields: dict[str, list[str]] | None = None,
    forwarded_for: tuple[str, ...] = (),
) -> RequestPlan:
    asking = Asking(path=path, query=query, method=method, client=client, fields=fields or {})
    asked = RequestContext(asking, scheme, authority, b"id", authorization, 0.0, forwarded_for)
    return run_all(build_handlers(middlewares), asked)


def location(treatment: RequestPlan) -> tuple[int, str]:
    assert treatment.answer is not None
    return treatment.answer.status, dict(treatment.answer.fields)[b"Location"].decode()


@pytest.mark.parametrize(
    ("middleware", "asked", "expected"),
    [
        (RedirectScheme("https"), {}, (302, "https://a.example/a/b")),
        (RedirectScheme("https", True), {"query": "x=1"}, (301, "https://a.example/a/b?x=1")),
        (RedirectScheme("https", True), {"method": "POST"}, (308, "https://a.example/a/b")),
        (RedirectScheme("https", port="8443"), {}, (302, "https://a.example:8443/a/b")),
        (RedirectScheme("https"), {"authority": "a.example:8080"}, (302, "https://a.example/a/b")),
        (
            RedirectRegex(Expression("^http://a.example/(.*)"), "https://b.example/${1}", True),
            {},
            (301, "https://b.example/a/b"),
        ),
    ],
)
def test_redirects(middleware: model.Middleware, asked: dict[str, str], expected: tuple[int, str]) -> None:
    assert location(treated(middleware, **asked)) == expected


def test_what_is_already_where_it_should_be_is_not_redirected() -> None:
    assert treated(RedirectScheme("https"), scheme="https").answer is None
    assert treated(RedirectRegex(Expression("^https://"), "http://")).answer is None


@pytest.mark.parametrize(
    ("middleware", "path"),
    [
        (StripPrefix(("/x", "/a")), "/b"),
        (StripPrefix(("/a/b",)), "/"),
        (StripPrefix(("/x",)), "/a/b"),
        (StripPrefixRegex((Expression("^/x"), Expression("^/[a-z]"))), "/b"),
        (StripPrefixRegex((Expression("/b"),)), "/a/b"),  # not where the path begins
        (AddPrefix("/v1"), "/v1/a/b"),
        (ReplacePath("/z"), "/z"),
        (ReplacePathRegex(Expression("^/a/(.*)"), "/c/$1"), "/c/b"),
    ],
)
def test_paths(middleware: model.Middleware, path: str) -> None:
    assert treated(middleware).path == path


def test_a_stripped_prefix_is_told() -> None:
    assert treated(StripPrefix(("/a/",))).request_fields == [("X-Forwarded-Prefix", "/a")]


def test_middlewares_work_in_order() -> None:
    assert treated(AddPrefix("/x"), StripPrefix(("/x/a",))).path == "/b"
    limited = treated(IpAllowList(()), RedirectScheme("https"))
    assert limited.fault is HttpFault.FORBIDDEN


def test_fields_are_set_and_taken_away() -> None:
    headers = Headers((("X-A", "1"), ("Cookie", "")), (("Server", ""), ("X-B", "2")))
    treatment = treated(headers)
    assert treatment.request_fields == [("X-A", "1"), ("Cookie", None)]
    assert treatment.response_fields == [("Server", None), ("X-B", "2")]


def test_of_several_that_set_a_field_the_last_counts() -> None:
    first = Headers((("X-A", "1"), ("X-B", "1")), (("Server", "x"), ("Via", "")))
    treatment = treated(first, Headers((("x-a", "2"), ("X-B", "")), (("server", ""), ("Via", "y"))))
    sent = with_fields(b"X-A: 0\r\nX-B: 0\r\nC: d\r\n", treatment.request_fields)
    assert sent == b"C: d\r\nx-a: 2\r\n"
    assert with_fields(b"Server: z\r\nVia: z\r\n", treatment.response_fields) == b"Via: y\r\n"


def basic(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


@pytest.mark.parametrize("hashed", [MD5, SHA])
def test_passwords(hashed: str) -> None:
    assert matches("secret", hashed)
    assert not matches("Secret", hashed)
    assert not matches("", hashed)
    assert not matches("secret\0", hashed)


def test_bcrypt() -> None:
    import bcrypt

    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    assert matches("secret", hashed)
    assert not matches("wrong", hashed)
    assert not matches("wrong", BCRYPT)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (basic("admin", "secret"), True),
        (basic("admin", "wrong"), False),
        (basic("other", "secret"), False),
        (b"Bearer x", False),
        (b"Basic !!!", False),
        (None, False),
    ],
)
def test_basic_auth(given: bytes | None, allowed: bool) -> None:
    treatment = treated(BasicAuth((("admin", MD5),), keep_header=False), authorization=given)
    if allowed:
        assert treatment.answer is None
        assert treatment.request_fields == [("Authorization", None)]
    else:
        assert treatment.answer is not None
        assert treatment.answer.status == 401
        assert dict(treatment.answer.fields)[b"WWW-Authenticate"] == b'Basic realm="traefik"'


def test_the_application_is_told_the_name_that_was_proven() -> None:
    one = BasicAuth((("admin", MD5),), header="X-User")
    fields = treated(one, authorization=basic("admin", "secret")).request_fields
    sent = with_fields(b"x-user: root\r\nX-User: root\r\nA: b\r\n", fields)
    assert sent == b"A: b\r\nX-User: admin\r\n"


@pytest.mark.parametrize(("client", "allowed"), [("10.0.0.1", True), ("10.1.0.1", False), ("::1", True)])
def test_addresses(client: str, allowed: bool) -> None:
    one = IpAllowList((ip_network("10.0.0.0/24"), ip_network("::1/128")))
    assert (treated(one, client=client).fault is None) is allowed


@pytest.mark.parametrize(
    ("strategy", "forwarded_for", "status"),
    [
        (IpStrategy(depth=1), ("6.6.6.6", "192.0.2.1"), None),
        (IpStrategy(depth=2), ("192.0.2.1", "6.6.6.6"), None),
        (IpStrategy(depth=1), ("192.0.2.1", "6.6.6.6"), 404),
        (IpStrategy(depth=3), ("192.0.2.1", "6.6.6.6"), 404),
        (IpStrategy(depth=1), (), 404),
        (IpStrategy(depth=1), ("nonsense",), 404),
        (IpStrategy(excluded=(ip_network("10.0.0.0/8"),)), ("192.0.2.1", "10.1.1.1", "10.2.2.2"), None),
        (IpStrategy(excluded=(ip_network("10.0.0.0/8"),)), ("192.0.2.1", "6.6.6.6", "10.2.2.2"), 404),
        (IpStrategy(excluded=(ip_network("10.0.0.0/8"),)), ("10.2.2.2",), 404),
        (IpStrategy(), ("192.0.2.1",), 404),
    ],
)
def test_which_address_counts(
    strategy: IpStrategy, forwarded_for: tuple[str, ...], status: int | None
) -> None:
    one = IpAllowList((ip_network("192.0.2.0/24"),), strategy, 404)
    answer = treated(one, forwarded_for=forwarded_for).answer
    assert (answer.status if answer else None) == status


@pytest.mark.parametrize(
    ("source", "same", "other"),
    [
        (ClientKeySource("X-Key"), {"client": "10.0.0.2"}, {"fields": {"x-key": ["b"]}}),
        (ClientKeySource(host=True), {"client": "10.0.0.2"}, {"host": "b"}),
        (ClientKeySource(), {"host": "b"}, {"client": "10.0.0.2"}),
        (
            ClientKeySource(address=IpStrategy(1)),
            {"client": "10.0.0.2"},
            {"forwarded_for": ("::2",)},
        ),
        (ClientKeySource(prefix6=64), {"client": "2001:db8::7"}, {"client": "2001:db8:0:1::1"}),
    ],
)
def test_sources_that_share_a_limit(
    source: ClientKeySource, same: dict[str, Any], other: dict[str, Any]
) -> None:
    made = build_handlers([InFlightReq(1, source)])

    def fault(**of: Any) -> HttpFault | None:
        usual = {"client": "2001:db8::1", "fields": {"x-key": ["a" * 99]}, "forwarded_for": ("::1",)} | of
        forwarded_for = usual.pop("forwarded_for")
        return run_all(
            made, RequestContext(Asking(**usual), "http", "a", b"", None, 0.0, forwarded_for)
        ).fault

    assert fault() is None
    assert fault(**same) is HttpFault.TOO_MANY_REQUESTS
    assert fault(**other) is None


def test_a_rate_is_each_clients_own() -> None:
    made = build_handlers([RateLimit(2.0, 3)])

    def faults(client: str, now: float) -> HttpFault | None:
        return run_all(made, RequestContext(Asking(client=client), "http", "a", b"", None, now)).fault

    limited = HttpFault.TOO_MANY_REQUESTS
    assert [faults("a", 0.0) for _ in range(4)] == [None, None, None, limited]
    assert faults("b", 0.0) is None
    assert [faults("a", 0.5), faults("a", 0.5)] == [None, limited]
    assert [faults("a", 100.0) for _ in range(4)] == [None, None, None, limited]


def test_requests_in_flight_of_one_client_are_limited() -> None:
    made = build_handlers([InFlightReq(1)])

    def ask(client: str) -> RequestPlan:
        return run_all(made, RequestContext(Asking(client=client), "http", "a", b"", None, 0.0))

    first = ask("a")
    assert first.fault is None
    assert ask("a").fault is HttpFault.TOO_MANY_REQUESTS
    assert ask("b").fault is None
    (end,) = first.on_end
    end()
    assert ask("a").fault is None
