"""Labels as people's stacks have them, and what becomes of requests: the service and path, or our answer.

Written anew after common practice; each is a whole stack's, all of them are in force together.
"""

from dataclasses import dataclass

import pytest

from mesh.catalog.model import Service
from mesh.http.codec.h1_head import ResponseHead, read_response
from mesh.http.codec.path_check import normal_path
from mesh.http.config.model import HttpRoute
from mesh.http.labels.http import read_labels
from mesh.http.middleware.chain import build_handlers
from mesh.http.request_plan import RequestContext
from mesh.http.routing.reference_resolver import ReferenceResolver
from mesh.http.routing.route_table import RouteTable
from tests.support.middleware_runs import run_all

ROUTER, SERVICE, MIDDLEWARE = (f"traefik.http.{kind}" for kind in ("routers", "services", "middlewares"))
PLAIN, SECURE = "http", "https"


def port(service: str, number: int) -> dict[str, str]:
    return {f"{SERVICE}.{service}.loadbalancer.server.port": str(number)}


def both_ways(app: str, rule: str, *middlewares: str) -> dict[str, str]:
    """A router on either entry point; the plain one only sends to the other."""
    return {
        "traefik.enable": "true",
        f"{ROUTER}.{app}-http.rule": rule,
        f"{ROUTER}.{app}-http.entrypoints": "http",
        f"{ROUTER}.{app}-http.middlewares": "https-redirect",
        f"{ROUTER}.{app}-https.rule": rule,
        f"{ROUTER}.{app}-https.entrypoints": "https",
        f"{ROUTER}.{app}-https.tls": "true",
        **({f"{ROUTER}.{app}-https.middlewares": ",".join(middlewares)} if middlewares else {}),
    }


STACKS = {
    "proxy_dashboard": {
        **both_ways("dash", "Host(`dash.example`)", "admin-auth"),
        **port("dash", 8080),
        f"{MIDDLEWARE}.https-redirect.redirectscheme.scheme": "https",
        f"{MIDDLEWARE}.https-redirect.redirectscheme.permanent": "true",
        f"{MIDDLEWARE}.admin-auth.basicauth.users": "admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",  # secret
    },
    "whoami_web": {f"{ROUTER}.whoami.rule": "Host(`whoami.example`)", **port("whoami", 80)},
    "cloud_app": {
        **both_ways("cloud", "Host(`cloud.example`)", "cloud-dav", "cloud-sts"),
        **port("cloud", 80),
        f"{MIDDLEWARE}.cloud-dav.redirectregex.regex": "https://(.*)/.well-known/(?:card|cal)dav",
        f"{MIDDLEWARE}.cloud-dav.redirectregex.replacement": "https://${1}/remote.php/dav",
        f"{MIDDLEWARE}.cloud-dav.redirectregex.permanent": "true",
        f"{MIDDLEWARE}.cloud-sts.headers.stsSeconds": "15552000",
        f"{MIDDLEWARE}.cloud-sts.headers.customFrameOptionsValue": "SAMEORIGIN",
    },
    "monitor_charts": {
        **both_ways("charts", "Host(`ops.example`) && PathPrefix(`/charts`)", "charts-strip"),
        **port("charts", 3000),
        f"{MIDDLEWARE}.charts-strip.stripprefix.prefixes": "/charts",
    },
    "monitor_alerts": {
        **both_ways("alerts", "Host(`ops.example`)", "office@swarm"),
        **port("alerts", 9093),
        f"{MIDDLEWARE}.office.ipallowlist.sourcerange": "10.1.0.0/16, 127.0.0.1",
    },
    "paas_shop": {  # as a PaaS writes them
        "traefik.enable": "true",
        "traefik.swarm.network": "paas-network",
        f"{ROUTER}.paas-shop-1-web.rule": "Host(`shop.example`) && PathPrefix(`/v2`)",
        f"{ROUTER}.paas-shop-1-web.entrypoints": "http",
        f"{ROUTER}.paas-shop-1-web.service": "paas-shop-1-web",
        f"{ROUTER}.paas-shop-1-web.middlewares": "stripprefix-paas-shop-1,addprefix-paas-shop-1",
        f"{MIDDLEWARE}.stripprefix-paas-shop-1.stripprefix.prefixes": "/v2",
        f"{MIDDLEWARE}.addprefix-paas-shop-1.addprefix.prefix": "/app",
        **port("paas-shop-1-web", 3000),
    },
    "old_blog": {  # its middleware was another provider's: nobody may get in where a guard is missing
        f"{ROUTER}.blog.rule": "Host(`blog.example`)",
        f"{ROUTER}.blog.middlewares": "guard@file",
        **port("blog", 80),
    },
    "files_web": {  # the commonest middlewares in one chain
        **both_ways("files", "Host(`files.example`)", "files-secured"),
        **port("files", 8080),
        f"{MIDDLEWARE}.files-secured.chain.middlewares": "files-headers,files-limit,files-gzip",
        f"{MIDDLEWARE}.files-headers.headers.accessControlAllowOriginList": "https://app.example",
        f"{MIDDLEWARE}.files-headers.headers.accessControlAllowMethods": "GET,OPTIONS,PUT",
        f"{MIDDLEWARE}.files-headers.headers.accessControlMaxAge": "100",
        f"{MIDDLEWARE}.files-headers.headers.addVaryHeader": "true",
        f"{MIDDLEWARE}.files-limit.rateLimit.average": "100",
        f"{MIDDLEWARE}.files-limit.rateLimit.burst": "50",
        f"{MIDDLEWARE}.files-limit.rateLimit.sourceCriterion.ipStrategy.depth": "1",
        f"{MIDDLEWARE}.files-gzip.compress": "true",
        f"{MIDDLEWARE}.files-gzip.compress.excludedContentTypes": "text/event-stream",
    },
    "login_sso": {  # whom the others ask
        f"{ROUTER}.sso.rule": "Host(`login.example`)",
        **port("sso", 9091),
        f"{MIDDLEWARE}.sso.forwardauth.address": "http://login_sso:9091/api/authz/forward-auth",
        f"{MIDDLEWARE}.sso.forwardauth.trustForwardHeader": "true",
        f"{MIDDLEWARE}.sso.forwardauth.authResponseHeaders": "X-User,X-Groups",
    },
    "wiki_app": {
        **both_ways("wiki", "Host(`wiki.example`)", "sso@swarm", "wiki-prefix"),
        **port("wiki", 80),
        f"{MIDDLEWARE}.wiki-prefix.addprefix.prefix": "/w",
    },
    "wild_tenants": {
        f"{ROUTER}.tenants.rule": "HostRegexp(`^[a-z0-9-]+\\.tenants\\.example$`) && !Path(`/internal`)",
        **port("tenants", 8000),
    },
}
NAMED = {  # faults, and nothing beside them
    "old_blog": f"{ROUTER}.blog.middlewares",
}


@dataclass(frozen=True)
class Asking:
    host: str
    path: str
    method: str = "GET"
    query: str = ""
    client: str = "10.1.0.7"

    def header(self, _name: str) -> list[str]:
        return []


@pytest.fixture(scope="module")
def directory() -> ReferenceResolver:
    made = ReferenceResolver()
    for number, (name, labels) in enumerate(STACKS.items()):
        read = read_labels(Service(f"s{number}", name, labels=labels))
        assert read.problems == (), name
        made.update(f"s{number}", name, read.declared)
    return made


def becomes(
    directory: ReferenceResolver,
    asking: Asking,
    entry: str,
    authorization: bytes | None = None,
    verdict: ResponseHead | None = None,
) -> str:
    table = RouteTable()
    for route in directory.routes():
        if entry in (route.entrypoints or (entry,)) and (entry == SECURE or not route.tls):
            table.add(route)
    found: HttpRoute | None = table.find(asking)
    if found is None:
        return "404"
    asked = RequestContext(asking, entry, asking.host, b"id", authorization, 0.0)
    treatment = run_all(build_handlers(found.middlewares), asked, verdict)
    if treatment.answer is None:
        return f"{found.service} {treatment.path}"
    location = dict(treatment.answer.fields).get(b"Location", b"").decode()
    return f"{treatment.answer.status} {location}".strip()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://whoami.example/", "whoami /"),
        ("https://whoami.example/a/./b", "whoami /a/b"),
        ("http://nobody.example/", "404"),
        ("http://dash.example/x", "301 https://dash.example/x"),
        ("https://dash.example/x", "401"),
        ("http://cloud.example/", "301 https://cloud.example/"),
        ("https://cloud.example/.well-known/carddav", "301 https://cloud.example/remote.php/dav"),
        ("https://cloud.example/.well-known/webfinger", "cloud /.well-known/webfinger"),
        ("https://ops.example/charts/d/1", "charts /d/1"),
        ("https://ops.example/charts", "charts /"),
        ("https://ops.example/", "alerts /"),
        ("http://ops.example/charts/d", "301 https://ops.example/charts/d"),
        ("http://shop.example/v2/cart", "paas-shop-1-web /app/cart"),
        ("https://shop.example/v2/cart", "404"),
        ("http://shop.example/v1", "404"),
        ("http://blog.example/", "404"),
        ("https://files.example/a", "files /a"),
        ("http://one.tenants.example/", "tenants /"),
        ("http://one.tenants.example/x/../%69nternal", "404"),
        ("http://a.b.tenants.example/", "404"),
    ],
)
def test_what_becomes_of_requests(directory: ReferenceResolver, url: str, what: str) -> None:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    assert becomes(directory, Asking(host, normal_path("/" + path)), scheme) == what


def test_who_may(directory: ReferenceResolver) -> None:
    assert becomes(directory, Asking("dash.example", "/"), SECURE, b"Basic YWRtaW46c2VjcmV0") == "dash /"
    assert becomes(directory, Asking("dash.example", "/"), SECURE, b"Basic YWRtaW46d3Jvbmc=") == "401"
    assert becomes(directory, Asking("ops.example", "/", client="10.2.0.1"), SECURE) == "403"
    assert becomes(directory, Asking("ops.example", "/charts", client="10.2.0.1"), SECURE) == "charts /"


def test_somebody_else_says_who_may(directory: ReferenceResolver) -> None:
    def asked(verdict: str) -> str:
        head = read_response(f"HTTP/1.1 {verdict}\r\n\r\n".encode())
        return becomes(directory, Asking("wiki.example", "/page"), SECURE, verdict=head)

    assert asked("200 OK\r\nX-User: jane") == "wiki /w/page"
    assert asked("302 Found\r\nLocation: https://login.example/") == "302 https://login.example/"
    assert becomes(directory, Asking("wiki.example", "/page"), SECURE) == "503"


def test_only_what_is_wrong_is_named(directory: ReferenceResolver) -> None:
    assert {problem.file: problem.key for problem in directory.problems()} == NAMED
