"""People's labels: what is made of them, and that nothing is passed over in silence."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.balance.policies import Policy
from mesh.catalog.model import Port, Service
from mesh.http.config import model
from mesh.http.config.model import StickyCookie
from mesh.http.config.regex import Expression
from mesh.http.config.rule_parser import read_rule
from mesh.http.labels.http import ReadRouters, read_labels
from mesh.http.labels.router_options import CLAUSES, MESH_ROUTER, TRAEFIK_ROUTER
from mesh.http.labels.service_options import MESH_SERVICE, TRAEFIK_COOKIE, TRAEFIK_SERVICE
from mesh.http.middleware.client_key import ClientKeySource, IpStrategy
from mesh.http.middleware.kinds.basic_auth import BasicAuth
from mesh.http.middleware.kinds.chain import Chain
from mesh.http.middleware.kinds.compress import Compress
from mesh.http.middleware.kinds.cors import Cors
from mesh.http.middleware.kinds.errors import ErrorPages
from mesh.http.middleware.kinds.forward_auth import ForwardAuth
from mesh.http.middleware.kinds.headers import Headers
from mesh.http.middleware.kinds.in_flight_req import InFlightReq
from mesh.http.middleware.kinds.ip_allow_list import IpAllowList
from mesh.http.middleware.kinds.rate_limit import RateLimit
from mesh.http.middleware.kinds.redirect_scheme import RedirectScheme
from mesh.http.middleware.kinds.strip_prefix_regex import StripPrefixRegex
from mesh.http.middleware.table import BY_LABEL

ROUTER, SERVICE, MIDDLEWARE = (f"traefik.http.{kind}" for kind in ("routers", "services", "middlewares"))


def read(
    labels: dict[str, str], *ports: Port, id_: str = "s1", name: str = "shop_web", exposed: bool = True
) -> ReadRouters:
    return read_labels(Service(id_, name, ports=ports, labels=labels), exposed)


def keys(found: ReadRouters) -> list[str]:
    return [problem.key for problem in found.problems]


WHOAMI = {
    "traefik.enable": "true",
    f"{ROUTER}.whoami.rule": "Host(`whoami.example`)",
    f"{ROUTER}.whoami.entrypoints": "web",
    f"{SERVICE}.whoami.loadbalancer.server.port": "80",
}


def test_four_labels_declare_a_router_and_a_service() -> None:
    found = read(WHOAMI)
    router = found.declared.routers["whoami"]
    assert (router.rule, router.entrypoints, router.service) == ("Host(`whoami.example`)", ("web",), "whoami")
    assert router.priority == len(router.rule)
    assert found.declared.services["whoami"].port == 80
    assert found.problems == ()


def test_http_and_https_with_a_redirect_between() -> None:
    """As most guides for Swarm have it."""
    found = read(
        {
            "traefik.enable": "true",
            "traefik.docker.network": "traefik-public",
            "traefik.constraint-label": "traefik-public",
            f"{ROUTER}.app-http.rule": "Host(`app.example`)",
            f"{ROUTER}.app-http.entrypoints": "http",
            f"{ROUTER}.app-http.middlewares": "https-redirect",
            f"{ROUTER}.app-https.rule": "Host(`app.example`)",
            f"{ROUTER}.app-https.entrypoints": "https",
            f"{ROUTER}.app-https.tls": "true",
            f"{ROUTER}.app-https.tls.certresolver": "le",
            f"{SERVICE}.app.loadbalancer.server.port": "8080",
            f"{MIDDLEWARE}.https-redirect.redirectscheme.scheme": "https",
            f"{MIDDLEWARE}.https-redirect.redirectscheme.permanent": "true",
        }
    )
    assert found.declared.routers["app-https"].tls
    assert not found.declared.routers["app-http"].tls
    assert {router.service for router in found.declared.routers.values()} == {"app"}
    assert found.declared.middlewares["https-redirect"] == RedirectScheme("https", True)
    assert found.declared.services["app"].network == "traefik-public"
    assert found.declared.routers["app-https"].issued
    assert not found.declared.routers["app-http"].issued
    assert keys(found) == ["traefik.constraint-label", "traefik.docker.network"]


def test_case_does_not_matter() -> None:
    found = read({"Traefik.HTTP.Routers.Web.Rule": "Host(`a`)", f"{ROUTER}.WEB.EntryPoints": "Web"}, PORT)
    assert found.declared.routers["web"].entrypoints == ("web",)
    assert found.problems == ()


PORT = Port(80, 8080)
STACK = {"com.docker.stack.namespace": "shop"}
SHA = "{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc="


def test_a_service_alone_gets_a_router_by_its_name() -> None:
    found = read({f"{SERVICE}.x.loadbalancer.server.port": "80"}, name="shop_web.api")
    (router,) = found.declared.routers.values()
    assert (router.name, router.rule, router.service) == ("shop-web-api", "Host(`shop-web-api`)", "x")


def test_a_router_alone_gets_a_service_with_the_port_that_is_published() -> None:
    found = read({f"{ROUTER}.r.rule": "Host(`a`)"}, PORT)
    (service,) = found.declared.services.values()
    assert (service.port, found.declared.routers["r"].service) == (8080, service.name)


def test_without_a_port_there_is_no_service() -> None:
    found = read({f"{ROUTER}.r.rule": "Host(`a`)"})
    assert found.declared.services == {}
    assert "the port inside the task is not named" in found.problems[0].message


def test_of_several_services_one_must_be_named() -> None:
    labels = {f"{ROUTER}.r.rule": "Host(`a`)"} | {
        f"{SERVICE}.{name}.loadbalancer.server.port": "80" for name in "ab"
    }
    assert keys(read(labels)) == [f"{ROUTER}.r.service"]
    assert read(labels | {f"{ROUTER}.r.service": "b"}).problems == ()


@pytest.mark.parametrize(
    ("labels", "exposed", "served"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"traefik.enable": "true"}, False, True),
        ({"traefik.enable": "false"}, True, False),
        ({"traefik.enable": "nonsense"}, True, False),
        ({"mesh.enable": "false"}, True, False),
    ],
)
def test_traefik_enable_decides_what_is_served(labels: dict[str, str], exposed: bool, served: bool) -> None:
    found = read({f"{ROUTER}.r.rule": "Host(`a`)"} | labels, PORT, exposed=exposed)
    assert bool(found.declared.routers) is served


def test_a_service_without_http_labels_declares_nothing() -> None:
    assert read({"com.docker.stack.namespace": "x", "traefik.enable": "true"}, PORT) == ReadRouters()


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("traefik.frontend.rule", "Host:a", "Traefik v1's"),
        ("traefik.port", "80", "Traefik v1's"),
        ("traefik.udp.routers.x.entrypoints", "dns", "UDP routers are not supported"),
        ("traefik.udp.services.x.loadbalancer.server.port", "1", "UDP routers are not supported"),
        ("traefik.nonsense", "1", "unknown label"),
        ("traefik.http.nonsense.x.y", "1", "unknown label"),
        ("traefik.swarm.lbswarm", "true", "balanced by the sidecar itself"),
        (f"{ROUTER}.web.nonsense", "1", "unknown option"),
        (f"{ROUTER}.web.priority", "high", "no number"),
        (f"{ROUTER}.web.rule", "Host(", "the router is left out"),
        (f"{ROUTER}.a@b.rule", "Host(`x`)", "must not contain @"),
        (f"{ROUTER}.web.tls.options", "x@file", "the router is not served"),
        (f"{ROUTER}.web.tls.domains[0].main", "-a.example", "is no name of a host"),
        (f"{SERVICE}.web.loadbalancer.server.port", "http", "no number"),
        (f"{SERVICE}.web.loadbalancer.server.weight", "2", "not supported"),
        (f"{SERVICE}.web.loadbalancer.healthcheck.path", "x", "no path"),
        (f"{SERVICE}.web.loadbalancer.healthcheck.interval", "1ms", "less than 100ms"),
        (f"{SERVICE}.web.loadbalancer.healthcheck.colour", "x", "unknown option"),
        (f"{SERVICE}.web.loadbalancer.healthcheck.mode", "tcp", "is not one of http, grpc"),
        (f"{SERVICE}.web.loadbalancer.healthcheck.hostname", "a b", "no name of a host"),
        (f"{SERVICE}.web.loadbalancer.healthcheck.headers.Content-Length", "1", "no field that can be set"),
        (f"{SERVICE}.web.loadbalancer.sticky.cookie.colour", "x", "unknown option"),
        (f"{SERVICE}.web.weighted.services", "x", "only loadbalancer"),
        (f"{MIDDLEWARE}.m.digestauth.users", "a:b:c", "digestauth is not supported"),
        (f"{MIDDLEWARE}.m.errors.status", "500", "is required"),
        (f"{MIDDLEWARE}.m.forwardauth.address", "auth:9091", "is no address as"),
        (f"{MIDDLEWARE}.m.forwardauth.address", "http://a:b@auth/", "is no address as"),
        (f"{MIDDLEWARE}.m.forwardauth.address", "http://auth:99999/", "ort"),
        (f"{MIDDLEWARE}.m.forwardauth.address", "http://auth/ x", "is no path"),
        (f"{MIDDLEWARE}.m.forwardauth.trustforwardheader", "true", "is required"),
        (f"{MIDDLEWARE}.m.circuitbreaker.expression", "x", "routers are served without"),
        (f"{MIDDLEWARE}.m.grpcweb", "true", "routers are served without"),
        (f"{MIDDLEWARE}.m.compress.encodings", "br", "is not supported; ignored"),
        (f"{MIDDLEWARE}.m.compress.minresponsebodybytes", "-1", "is no number from 1 to"),
        (f"{MIDDLEWARE}.m.ipallowlist.sourcerange", "10.0.0.0/8,x", "does not appear to be"),
        (f"{MIDDLEWARE}.m.headers.accesscontrolallowmethods", "GET\r\nX: y", "bytes that no field may have"),
        (f"{MIDDLEWARE}.m.headers.accesscontrolalloworiginlistregex", "(", "is no regular expression"),
        (f"{MIDDLEWARE}.m.stripprefixregex.regex", "/a,(", "is no regular expression"),
        (f"{MIDDLEWARE}.m.redirectscheme.permanent", "true", "is required"),
        (f"{MIDDLEWARE}.m.basicauth.users", "admin:plain", "is not of htpasswd's"),
        (f"{MIDDLEWARE}.m.basicauth.users", f"admin:$2y$31${'a' * 21}O{'a' * 31}", "bcrypt up to cost 12"),
        (f"{MIDDLEWARE}.m.basicauth.users", f"admin:$2y$05${'z' * 53}", "is not of htpasswd's"),
        (f"{MIDDLEWARE}.m.basicauth.usersfile", "/run/secrets/users", "is required"),
        (f"{MIDDLEWARE}.m.buffering.retryexpression", "IsNetworkError()", "is not supported; ignored"),
        (f"{MIDDLEWARE}.m.ratelimit.average", "9" * 400, "is no number from 1 to"),
        (f"{MIDDLEWARE}.m.inflightreq.amount", "9" * 5000, "is no number from 1 to"),
        (f"{MIDDLEWARE}.m.stripprefix.prefixes", "/a,api", "is no path"),
        (f"{MIDDLEWARE}.m.addprefix.prefix", "/\u00e9", "is no path"),
        (f"{SERVICE}.web.loadbalancer.server.port", "9" * 5000, "is no number from 1 to"),
        (f"{SERVICE}.web.loadbalancer.sticky.cookie.name", "a;b", "is no name of a cookie"),
        (f"{SERVICE}.web.loadbalancer.sticky.cookie.path", "/; Secure", "cannot be in a cookie"),
        ("mesh.http.sticky", "a\r\nb", "is no name of a cookie"),
        ("Traefik.http.routers.good.rule", "Host(`other`)", "is the same label as"),
        (f"{MIDDLEWARE}.m.headers.customrequestheaders.Connection", "x", "no field that can be set"),
        (f"{MIDDLEWARE}.m.headers.customrequestheaders.X-A", "a\r\nb: c", "bytes that no field may have"),
        ("mesh.http.colour", "red", "unknown option, known are"),
        ("mesh.http.rule", "nonsense", "the router is left out"),
    ],
)
def test_every_fault_is_named_and_takes_nothing_else_down(label: str, value: str, message: str) -> None:
    labels = {f"{ROUTER}.good.rule": "Host(`good`)", f"{ROUTER}.good.service": "good"}
    labels |= {f"{SERVICE}.good.loadbalancer.server.port": "80"}
    found = read(labels | {label: value}, PORT)
    assert any(problem.key.lower().startswith(label.split("[")[0][:24].lower()) for problem in found.problems)
    assert any(message in problem.message for problem in found.problems)
    assert found.declared.routers["good"].service == "good"
    assert found.declared.services["good"].port == 80


@pytest.mark.parametrize("option", ["redirectregex.replacement", "basicauth.realm"])
def test_no_label_writes_field_lines_of_its_own(option: str) -> None:
    kind = option.partition(".")[0]
    whole = {f"{MIDDLEWARE}.m.redirectregex.regex": "a", f"{MIDDLEWARE}.m.redirectregex.replacement": "b"}
    if kind == "basicauth":
        whole = {f"{MIDDLEWARE}.m.basicauth.users": "a:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc="}
    assert "m" in read(whole).declared.middlewares
    found = read(whole | {f"{MIDDLEWARE}.m.{option}": "x\r\nSet-Cookie: y"})
    assert keys(found) == [f"{MIDDLEWARE}.m.{option}"]
    assert found.declared.middlewares == {}


def test_options_of_each_kind_of_middleware() -> None:
    prefix = f"{MIDDLEWARE}.m"
    networks = (ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"))
    by_depth = {"sourceCriterion.ipStrategy.depth": "2", "sourceCriterion.ipStrategy.ipv6Subnet": "64"}
    for options, expected in (
        ({"compress": "true"}, Compress()),
        (
            {"compress.excludedContentTypes": "text/event-stream, text/CSV; charset=x"},
            Compress(excluded=("text/event-stream", "text/csv")),
        ),
        (
            {"compress.minResponseBodyBytes": "0", "compress.includedContentTypes": "text/html"},
            Compress(0, ("text/html",)),
        ),
        (
            {
                "forwardauth.address": "http://Auth_server:9091/verify?rd=https://x/",
                "forwardauth.trustForwardHeader": "true",
                "forwardauth.authResponseHeaders": "Remote-User, Remote-Groups",
                "forwardauth.authRequestHeaders": "Cookie",
                "forwardauth.authResponseHeadersRegex": "^X-",
            },
            ForwardAuth(
                "http://auth_server:9091/verify?rd=https://x/",
                "auth_server",
                9091,
                "/verify?rd=https://x/",
                "auth_server:9091",
                trust_forward_header=True,
                request_headers=("Cookie",),
                response_headers=("Remote-User", "Remote-Groups"),
                response_expression=Expression("^X-"),
            ),
        ),
        (
            {"errors.status": "404, 500-599", "errors.service": "Pages@swarm", "errors.query": "/{status}"},
            ErrorPages(((404, 404), (500, 599)), "pages", "/{status}"),
        ),
        ({"buffering.maxRequestBodyBytes": "0"}, Chain(())),
        ({"ratelimit.burst": "5"}, Chain(())),
        (
            {"basicauth.users": f"a:{SHA}", "basicauth.headerField": "X-User"},
            BasicAuth((("a", SHA),), header="X-User"),
        ),
        ({"stripprefixregex.regex": "^/[a-z]+/"}, StripPrefixRegex((Expression("^/[a-z]+/"),))),
        (
            {
                "ipallowlist.sourceRange": "10.0.0.0/8, 192.0.2.7",
                "ipallowlist.ipStrategy.excludedIPs": "10.0.0.0/8,192.0.2.7",
                "ipallowlist.rejectStatusCode": "404",
            },
            IpAllowList(networks, IpStrategy(excluded=networks), 404),
        ),
        (
            {f"ratelimit.{name}": value for name, value in by_depth.items()} | {"ratelimit.average": "5"},
            RateLimit(5.0, 1, ClientKeySource(address=IpStrategy(2), prefix6=64)),
        ),
        ({"inflightreq.amount": "3"}, InFlightReq(3, ClientKeySource(host=True))),
        (
            {"inflightreq.amount": "3", "inflightreq.sourceCriterion.requestHeaderName": "X-Key"},
            InFlightReq(3, ClientKeySource("X-Key")),
        ),
        (
            {
                "headers.accessControlAllowOriginList": "https://a.example,https://b.example",
                "headers.accessControlAllowMethods": "GET,PUT",
                "headers.accessControlMaxAge": "100",
                "headers.addVaryHeader": "true",
            },
            Headers(
                cors=Cors(
                    ("https://a.example", "https://b.example"), methods=("GET", "PUT"), max_age=100, vary=True
                )
            ),
        ),
    ):
        found = read({f"{prefix}.{option}": value for option, value in options.items()})
        assert found.problems == ()
        assert found.declared.middlewares["m"] == expected


@pytest.mark.parametrize(
    ("address", "host", "port", "authority", "may_be_external"),
    [
        ("http://auth", "auth", 80, "auth", False),
        ("http://Tasks.auth./x", "tasks.auth", 80, "tasks.auth", True),
        ("https://auth/", "auth", 443, "auth", True),
        ("http://192.0.2.1:81/", "192.0.2.1", 81, "192.0.2.1:81", True),
        ("http://[FD00::1]:81/", "fd00::1", 81, "[fd00::1]:81", True),
    ],
)
def test_the_address_of_an_authorization_service(
    address: str, host: str, port: int, authority: str, may_be_external: bool
) -> None:
    found = read({f"{MIDDLEWARE}.m.forwardauth.address": address}).declared.middlewares["m"]
    assert isinstance(found, ForwardAuth)
    assert (found.host, found.port, found.authority, found.may_be_external) == (
        host,
        port,
        authority,
        may_be_external,
    )


def test_several_source_criteria_are_refused() -> None:
    prefix = f"{MIDDLEWARE}.m.inflightreq"
    both = {
        f"{prefix}.sourcecriterion.requesthost": "true",
        f"{prefix}.sourcecriterion.ipstrategy.depth": "1",
    }
    found = read({f"{prefix}.amount": "1"} | both)
    assert (found.declared.middlewares, keys(found)) == ({}, [f"{prefix}.sourcecriterion"])


@pytest.mark.parametrize("status", ["99", "600", "500-400", "4xx", "500-", "-599", "404,x"])
def test_statuses_are_numbers(status: str) -> None:
    found = read({f"{MIDDLEWARE}.m.errors.status": status, f"{MIDDLEWARE}.m.errors.service": "s"})
    assert (found.declared.middlewares, keys(found)) == ({}, [f"{MIDDLEWARE}.m.errors.status"])


def test_kinds_that_keep_nobody_out_do_nothing() -> None:
    found = read({f"{MIDDLEWARE}.m.circuitbreaker.expression": "NetworkErrorRatio() > 0.3"})
    assert found.declared.middlewares == {"m": Chain(())}


def test_sticky_cookies_and_strategies() -> None:
    prefix = f"{SERVICE}.web.loadbalancer"
    found = read(
        {
            f"{prefix}.server.port": "80",
            f"{prefix}.strategy": "p2c",
            f"{prefix}.sticky.cookie": "true",
            f"{prefix}.sticky.cookie.name": "lb",
            f"{prefix}.sticky.cookie.secure": "true",
            f"{prefix}.sticky.cookie.httpOnly": "true",
            f"{prefix}.sticky.cookie.samesite": "none",
            f"{prefix}.sticky.cookie.maxage": "60",
        }
    )
    service = found.declared.services["web"]
    assert service.policy is Policy.LEAST_CONN
    assert service.sticky == StickyCookie("lb", True, True, "None", max_age=60)
    assert found.problems == ()


def test_mesh_labels_declare_a_router_and_a_service() -> None:
    found = read(
        {"mesh.http.host": "a.example, b.example", "mesh.http.path": "/api", "mesh.http.port": "3000"}
    )
    (router,) = found.declared.routers.values()
    assert router.rule == "(Host(`a.example`) || Host(`b.example`)) && (PathPrefix(`/api`))"
    assert router.match == read_rule(router.rule)
    assert found.declared.services[router.service].port == 3000
    assert found.problems == ()


def test_mesh_labels_declare_several_routers() -> None:
    found = read(
        {
            "mesh.http.port": "8080",
            "mesh.http.middlewares": "auth",
            "mesh.http.site.host": "a.example",
            "mesh.http.api.host": "a.example",
            "mesh.http.api.path": "/api",
            "mesh.http.api.port": "9090",
            "mesh.http.api.middlewares": "auth,limit",
        }
    )
    assert {name: router.rule for name, router in found.declared.routers.items()} == {
        "mesh-shop-web.site": "(Host(`a.example`))",
        "mesh-shop-web.api": "(Host(`a.example`)) && (PathPrefix(`/api`))",
    }
    services = {name: service.port for name, service in found.declared.services.items()}
    assert services == {"mesh-shop-web.site": 8080, "mesh-shop-web.api": 9090}
    assert found.declared.routers["mesh-shop-web.site"].middlewares == ("auth",)
    assert found.declared.routers["mesh-shop-web.api"].middlewares == ("auth", "limit")
    assert found.problems == ()


def test_a_mesh_router_without_a_name_beside_others() -> None:
    found = read({"mesh.http.host": "a", "mesh.http.priority": "9", "mesh.http.b.host": "b"}, PORT)
    routers = found.declared.routers
    assert (routers["mesh-shop-web"].priority, routers["mesh-shop-web"].rule) == (9, "(Host(`a`))")
    assert (routers["mesh-shop-web.b"].priority, routers["mesh-shop-web.b"].rule) == (11, "(Host(`b`))")


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ({"mesh.http.host": "a/b", "mesh.http.path": "/"}, "mesh.http.host"),
        ({"mesh.http.host": "a", "mesh.http.path": "/,x"}, "mesh.http.path"),
        ({"mesh.http.host": "a", "mesh.http.rule": "Path(`/`)) || (Path(`/x`)"}, "mesh.http.rule"),
        ({"mesh.http.host": "a", "mesh.http.rule": "!" * 49 + "Path(`/`)" * 2}, "mesh.http.rule"),
        ({"mesh.http.a b.host": "a"}, "mesh.http.a b.host"),
        ({"mesh.http.a.b.host": "a"}, "mesh.http.a.b.host"),
    ],
)
def test_a_mesh_router_with_a_clause_that_cannot_be_read_is_left_out(
    labels: dict[str, str], key: str
) -> None:
    found = read(labels, PORT)
    assert (found.declared.routers, keys(found)) == ({}, [key])


def test_a_problem_that_routers_share_is_named_once() -> None:
    found = read({"mesh.http.port": "x", "mesh.http.a.host": "a", "mesh.http.b.host": "b"}, PORT)
    assert keys(found) == ["mesh.http.port"]
    assert len(found.declared.routers) == 2


def test_options_of_health_checks() -> None:
    prefix = f"{SERVICE}.whoami.loadbalancer.healthcheck"
    plain = read(WHOAMI | {f"{prefix}.interval": "10s"}).declared.services["whoami"].check
    assert plain == model.HealthCheck("/", interval=10.0)
    found = read(
        WHOAMI
        | {
            f"{prefix}.path": "/up?x=1",
            f"{prefix}.port": "81",
            f"{prefix}.unhealthyInterval": "5s",
            f"{prefix}.timeout": "3s",
            f"{prefix}.scheme": "h2c",
            f"{prefix}.hostname": "app.example",
            f"{prefix}.method": "HEAD",
            f"{prefix}.status": "204",
            f"{prefix}.headers.X-One": "1",
            f"{prefix}.headers.X-Two": "2",
            f"{prefix}.followredirects": "false",
            f"{prefix}.mode": "http",
        }
    )
    assert found.problems == ()
    assert found.declared.services["whoami"].check == model.HealthCheck(
        "/up?x=1",
        81,
        unwell_interval=5.0,
        timeout=3.0,
        scheme=model.Scheme.H2C,
        host="app.example",
        method="HEAD",
        statuses=frozenset((204,)),
        headers=(("X-One", "1"), ("X-Two", "2")),
        follow=False,
    )
    ours = {"mesh.http.host": "a", "mesh.http.port": "80", "mesh.http.health_status": "200-204"}
    for text, expected in (("/up", ("/up", False)), ("grpc", ("", True)), ("off", ("", False))):
        (service,) = read(ours | {"mesh.http.health": text}).declared.services.values()
        assert (service.check.path, service.check.grpc) == expected
        assert service.check.statuses == set(range(200, 205))


def test_passive_checks_are_traefiks_where_its_labels_ask_for_them() -> None:
    """Which counts every 5xx, and one of them is enough unless the label says another number."""
    prefix = f"{SERVICE}.whoami.loadbalancer.passivehealthcheck"

    def outlier(labels: dict[str, str]) -> tuple[int, int, float]:
        service = read(WHOAMI | labels).declared.services["whoami"]
        return service.outlier_failures, len(service.outlier_statuses), service.outlier_time

    assert outlier({}) == (3, 3, 10.0)
    assert outlier({f"{prefix}.failureWindow": "3s"}) == (1, 100, 3.0)
    assert outlier({f"{prefix}.maxFailedAttempts": "5"}) == (5, 100, 10.0)
    ours = {"mesh.http.services.whoami.outlier_statuses": "gateway"}
    assert outlier({f"{prefix}.maxFailedAttempts": "5"} | ours) == (5, 3, 10.0)


def test_mesh_labels_add_options_to_a_service_of_traefiks_labels() -> None:
    found = read(
        WHOAMI
        | {
            "mesh.http.services.whoami.max_requests": "9",
            "mesh.http.services.WhoAmI.outlier_statuses": "500,502-503",
            "mesh.http.services.whoami.host": "a",
            "mesh.http.services.nobody.max_requests": "9",
            "mesh.http.services.whoami.policy": "nonsense",
        }
    )
    service = found.declared.services["whoami"]
    assert (service.port, service.max_requests, service.outlier_statuses) == (80, 9, {500, 502, 503})
    assert list(found.declared.services) == ["whoami"]
    assert [problem.message.split(",")[0] for problem in found.problems] == [
        "Traefik's labels here declare no service 'nobody' (but whoami); ignored",
        "unknown option",
        "'nonsense' is not one of round_robin",
    ]


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("client", model.HashBy()),
        ("Header:X-User", model.HashBy(header="x-user")),
        ("cookie:Session", model.HashBy(cookie="Session")),
        ("header", None),
        ("header:", None),
        ("cookie:a b", None),
        ("client:x", None),
    ],
)
def test_hash_by_is_a_policy(text: str, by: model.HashBy | None) -> None:
    found = read({"mesh.http.host": "a", "mesh.http.port": "80", "mesh.http.hash_by": text})
    (service,) = found.declared.services.values()
    assert service.hash_by == (by or model.HashBy())
    assert (service.policy is Policy.SOURCE_HASH) is (by is not None)
    assert keys(found) == ["mesh.http.hash_by"] * (by is None)


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("gateway", {502, 503, 504}),
        ("5XX", set(range(500, 600))),
        ("none", set()),
        ("429, 500-502", {429, 500, 501, 502}),
        ("", None),
        ("500-", None),
        ("199", None),
        ("five", None),
    ],
)
def test_which_statuses_are_failures(text: str, statuses: set[int] | None) -> None:
    found = read({"mesh.http.host": "a", "mesh.http.port": "80", "mesh.http.outlier_statuses": text})
    (service,) = found.declared.services.values()
    assert service.outlier_statuses == (model.BAD_STATUSES if statuses is None else statuses)
    assert keys(found) == ["mesh.http.outlier_statuses"] * (statuses is None)


def test_the_documentation_names_all_that_is_read() -> None:
    text = (Path(__file__).parents[3] / "docs/http.md").read_text().lower()
    tables = "\n".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`([a-z_.]+)`", tables.replace("traefik.http.", "").replace("mesh.http.", ".")))
    options = {part for one in named for part in one.split(".") if part}
    for option in (*TRAEFIK_SERVICE, *TRAEFIK_COOKIE, *TRAEFIK_ROUTER):
        assert set(option.split(".")) <= options, option
    for option in (*MESH_SERVICE, *MESH_ROUTER, *CLAUSES):
        assert option in options, option
    for kind in BY_LABEL:
        assert kind in options, kind


def documented() -> list[tuple[str, ...]]:
    """The labels of the tables; where one is shortened to its end, what it may be short for."""
    found: list[tuple[str, ...]] = []
    for line in (Path(__file__).parents[3] / "docs/http.md").read_text().splitlines():
        if not line.startswith(("| `traefik.", "| `mesh.http.")):
            continue
        whole = ""
        for one in re.findall(r"`([A-Za-z_.]+)`", line.split(" | ")[0]):
            if not one.startswith("."):
                whole = one
                found.append((one,))
            else:
                up = whole.rsplit(".", 1)[0]
                found.append((whole + one, up + one, up.rsplit(".", 1)[0] + one))
    return found


def test_all_that_the_documentation_names_is_read() -> None:
    assert len(documented()) > 60
    for labels_ in documented():
        assert any(not _unknown(label) for label in labels_), labels_


def test_what_the_documentation_does_not_name_is_unknown() -> None:
    """Or the test above could not fail."""
    for label in (f"{ROUTER}.R.colour", f"{SERVICE}.S.loadbalancer.colour", f"{MIDDLEWARE}.M.headers.colour"):
        assert _unknown(label)
    assert _unknown(f"{MIDDLEWARE}.M.colour.red")
    assert _unknown(f"{MIDDLEWARE}.M.retry.colour")
    assert _unknown("mesh.http.colour")
    assert _unknown("mesh.http.R.colour")


def _unknown(label: str) -> bool:
    if label == "traefik.enable":
        return read(WHOAMI | {label: "x"}).problems == ()
    siblings = {  # without which the middleware is not made, and its other options not looked at
        f"{MIDDLEWARE}.M.{kind}.{option}": value
        for kind, option, value in (
            ("redirectscheme", "scheme", "https"),
            ("redirectregex", "regex", "a"),
            ("redirectregex", "replacement", "b"),
            ("replacepathregex", "regex", "a"),
            ("replacepathregex", "replacement", "/"),
            ("basicauth", "users", "a:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc="),
            ("ratelimit", "average", "1"),
            ("inflightreq", "amount", "1"),
            ("forwardauth", "address", "http://auth"),
            ("errors", "status", "500"),
            ("errors", "service", "pages"),
            ("ipallowlist", "sourcerange", "10.0.0.0/8"),
        )
        if label.startswith(f"{MIDDLEWARE}.M.{kind}.")
    }
    problems = read(siblings | {label: siblings.get(label, "1")}, PORT).problems
    return any(
        "is required" in problem.message  # it is not the option that was
        or (
            label.lower().startswith(problem.key.lower())
            and re.search("unknown|is not supported", problem.message)
        )
        for problem in problems
    )
