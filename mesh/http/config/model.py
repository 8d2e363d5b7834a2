"""Routers and HTTP services as labels declare them, and routes: frozen values, compared by content. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.balance.outlier_detection import EJECT_SECONDS, EJECT_SHARE, FAILURES_TO_EJECT
from mesh.balance.policies import Policy
from mesh.balance.retry_budget import LEAST, SHARE
from mesh.http.config.matchers import Matcher

# Fields that no middleware sets: they determine where a message ends and which connection it is for.
NEVER_SET = frozenset(
    ("connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "host")
)

# Statuses of a server, or of a gateway in front of it, that cannot serve.
BAD_STATUSES = frozenset((502, 503, 504))


class Scheme(StrEnum):
    """The protocol that a task speaks."""

    HTTP = "http"
    HTTPS = "https"
    H2C = "h2c"


# --- middlewares ---


class Middleware:
    """Base of the configurations of middlewares: frozen values, one class in each file of
    `middleware/kinds`."""

    __slots__ = ()

    @property
    def uses_forwarded_address(self) -> bool:
        """Does it go by addresses in X-Forwarded-For? Then it needs trusted proxies."""
        return False


# --- services ---


@dataclass(frozen=True, slots=True)
class StickyCookie:
    name: str = ""  # "": made of the service's name
    secure: bool = False
    http_only: bool = False
    same_site: str = ""
    path: str = "/"
    domain: str = ""
    max_age: int = 0  # seconds; 0: as long as the browser is open


@dataclass(frozen=True, slots=True)
class HashBy:
    """What a request's task is chosen by: a field or a cookie; without both, the client's address."""

    header: str = ""  # lower case
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How endpoints are checked. Without a path, and without `grpc`, they are not."""

    path: str = ""  # and query
    port: int = 0  # 0: the service's own
    interval: float = 30.0
    unwell_interval: float = 0.0  # of an endpoint that fails; 0: the same
    timeout: float = 5.0
    scheme: Scheme | None = None  # None: the service's own
    host: str = ""  # "": the endpoint's address
    method: str = "GET"
    statuses: frozenset[int] = frozenset()  # that pass; none: 200 to 399
    headers: tuple[tuple[str, str], ...] = ()
    follow: bool = True  # redirects
    grpc: bool = False  # check with grpc.health.v1


@dataclass(frozen=True, slots=True)
class HttpService:
    """Tasks of one Swarm service on one port. Times in seconds."""

    name: str
    owner: str  # Swarm service id
    port: int
    scheme: Scheme = Scheme.HTTP
    tls_verify: bool = True  # the tasks' certificates, where they speak https
    tls_name: str = ""  # the name that has to be in them
    tls_ca: str = ""  # file with the trusted authorities; "": the system's
    network: str = ""  # name of the network to reach tasks on; "": any
    policy: Policy = Policy.ROUND_ROBIN
    hash_by: HashBy = HashBy()  # for `Policy.SOURCE_HASH`
    sticky: StickyCookie | None = None
    pass_host: bool = True
    weight: int = 0  # per cent of the requests for `canary_of`
    canary_of: str = ""
    canary_from: tuple[str, ...] = ()  # stacks whose services may take a share of this one's; "*": all
    mirror_from: tuple[str, ...] = ()  # stacks that may send this one copies; "*": all
    mirror: str = ""  # HTTP service that gets copies of this one's requests
    mirror_percent: int = 100
    max_requests: int = 0  # under way at one task; 0: no limit
    response_timeout: float = 300.0  # to the first byte
    try_timeout: float = 0.0  # to the first byte, before another task is tried; 0: `response_timeout`, once
    timeout: float = 0.0  # to the end of the response; 0: none
    attempts: int = 3
    retry_budget: int = SHARE  # per cent of the requests under way that may be repeated ones
    retry_min: int = LEAST  # that may be, whatever the share comes to
    check: HealthCheck = HealthCheck()
    outlier_failures: int = FAILURES_TO_EJECT  # in a row; 0: no task is left out
    outlier_statuses: frozenset[int] = BAD_STATUSES  # of responses that are failures of the task
    outlier_time: float = EJECT_SECONDS  # that it is left out, the first time
    outlier_share: int = EJECT_SHARE  # per cent of the tasks that may be, at once
    scope: str = ""  # of its name: the stack's name

    @property
    def key(self) -> str:
        """Its unique name in the Swarm: several stacks may have services of the same name."""
        return f"{self.name}@{self.scope}" if self.scope else self.name


# --- routers ---


@dataclass(frozen=True, slots=True)
class Router:
    """A router as declared: its references are not resolved yet."""

    name: str
    owner: str
    rule: str
    match: Matcher
    entrypoints: tuple[str, ...] = ()  # none: all
    service: str = ""  # "": the owner's only one
    middlewares: tuple[str, ...] = ()
    priority: int = 0
    tls: bool = False
    issued: bool = False  # its certificates are ordered from an authority (ACME)
    domains: tuple[tuple[str, ...], ...] = ()  # names in one certificate each; none: the rule's hosts
    fault: str = ""  # why it is not served although its rule can be read


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A router with its references resolved."""

    name: str
    owner: str
    rule: str
    match: Matcher
    entrypoints: tuple[str, ...]
    service: str
    middlewares: tuple[Middleware, ...]
    priority: int
    tls: bool
    certificates: tuple[tuple[str, ...], ...] = ()  # to order from the authority: the names in each
    target: str = ""  # key of `service`
    scope: str = ""  # the stack's name
    seniority: float = 0.0  # the time since which its stack has had what it matches
    breadth: int = -1  # `claims.Breadth` of its widest part; -1: by its hosts
    closed: bool = False  # it is less guarded than was asked for: all its requests are refused


@dataclass(frozen=True, slots=True)
class Declared:
    """What the labels of one Swarm service declare."""

    routers: Mapping[str, Router] = field(default_factory=dict)
    services: Mapping[str, HttpService] = field(default_factory=dict)
    middlewares: Mapping[str, Middleware] = field(default_factory=dict)
    faulty: frozenset[tuple[str, str]] = frozenset()  # kind and name of what is declared but cannot be built
    scope: str = ""  # of its names: the stack's name

    def __bool__(self) -> bool:
        return bool(self.routers or self.services or self.middlewares or self.faulty)
