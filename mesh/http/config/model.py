"""Routers, services and middlewares as labels declare them: frozen values, compared by content. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from mesh.balance.outlier_detection import EJECT_SECONDS, EJECT_SHARE, FAILURES_TO_EJECT
from mesh.balance.policies import Policy
from mesh.balance.retry_budget import LEAST, SHARE
from mesh.http.config.matchers import Matcher
from mesh.http.config.regex import Expression

Network = IPv4Network | IPv6Network

# Fields that no middleware sets: they would change what the message is.
NEVER_SET = frozenset(
    ("connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "host")
)

# What a server says that cannot serve: of itself, or as a gateway of what is behind it.
BAD_STATUSES = frozenset((502, 503, 504))


class Scheme(StrEnum):
    """What a task speaks."""

    HTTP = "http"
    HTTPS = "https"
    H2C = "h2c"


# --- middlewares ---


@dataclass(frozen=True, slots=True)
class RedirectScheme:
    scheme: str
    permanent: bool = False
    port: str = ""


@dataclass(frozen=True, slots=True)
class RedirectRegex:
    expression: Expression  # on the whole URL
    replacement: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class StripPrefix:
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StripPrefixRegex:
    expressions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AddPrefix:
    prefix: str


@dataclass(frozen=True, slots=True)
class ReplacePath:
    path: str


@dataclass(frozen=True, slots=True)
class ReplacePathRegex:
    expression: Expression
    replacement: str


@dataclass(frozen=True, slots=True)
class Cors:
    """What pages of other origins may do here (Fetch standard, section 3.3)."""

    origins: tuple[str, ...] = ()  # "*": all
    expressions: tuple[Expression, ...] = ()  # of origins
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 0  # seconds that what a preflight said holds
    vary: bool = False  # say also where it is the same for all that it depends on the origin


@dataclass(frozen=True, slots=True)
class Headers:
    """An empty value takes the field away."""

    request: tuple[tuple[str, str], ...] = ()
    response: tuple[tuple[str, str], ...] = ()
    cors: Cors | None = None


@dataclass(frozen=True, slots=True)
class Compress:
    """`included`, `excluded`: media types. Without either: those that gain from it."""

    minimum: int = 1024  # bytes of a body
    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorPages:
    """Responses of these statuses are pages of that HTTP service."""

    statuses: tuple[tuple[int, int], ...]  # first, last
    service: str
    query: str  # path of a page; {status}, {url} are filled in


@dataclass(frozen=True, slots=True)
class BasicAuth:
    users: tuple[tuple[str, str], ...]  # name, hash as htpasswd writes it
    realm: str = "traefik"
    keep_header: bool = True  # false: the application does not see the password
    header: str = ""  # in which it is told the name


@dataclass(frozen=True, slots=True)
class ForwardAuth:
    """Whoever is at this address says whether a request may go on."""

    url: str  # with a path
    host: str  # lower case
    port: int
    target: str  # path and query
    authority: str
    tls: bool = False
    trust: bool = False  # what trusted proxies say of the method, host and target
    request_headers: tuple[str, ...] = ()  # that are shown there; none: all
    response_headers: tuple[str, ...] = ()  # of the answer, that the request goes on with
    response_expression: Expression | None = None  # names of more of them
    cookies: tuple[str, ...] = ()  # that the answer sets in the response
    keep_location: bool = False  # as it is in the answer, if it is relative
    keep_method: bool = False  # ask with the request's own
    scope: str = ""  # whose label it is: the stack's name

    @property
    def abroad(self) -> bool:
        """May it be outside the Swarm?"""
        return self.tls or "." in self.host or ":" in self.host


@dataclass(frozen=True, slots=True)
class IpStrategy:
    """Which address of those that trusted proxies name in X-Forwarded-For; without both: the client's."""

    depth: int = 0  # so many from the right
    excluded: tuple[Network, ...] = ()  # the first from the right that is none of these

    @property
    def named(self) -> bool:
        return bool(self.depth or self.excluded)


@dataclass(frozen=True, slots=True)
class ClientKeySource:
    """By what requests are told apart: the value of a field, the host that is asked for, or an address."""

    header: str = ""
    host: bool = False
    address: IpStrategy = IpStrategy()
    prefix6: int = 0  # IPv6 addresses that have so many bits in common count as one; 0: all of them


@dataclass(frozen=True, slots=True)
class IpAllowList:
    ranges: tuple[Network, ...]
    strategy: IpStrategy = IpStrategy()
    status: int = 403


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Of one source, on one node."""

    average: float  # requests per second
    burst: int = 1
    source: ClientKeySource = ClientKeySource()


@dataclass(frozen=True, slots=True)
class InFlightReq:
    amount: int  # of one source at once, on one node
    source: ClientKeySource = ClientKeySource()


@dataclass(frozen=True, slots=True)
class BodyLimit:
    most: int  # bytes of a request's body


@dataclass(frozen=True, slots=True)
class Retry:
    attempts: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Of others, by name; resolved away when routers are."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deny:
    """What closed routers have in place of their own: nobody comes through. No label makes one."""


Middleware = (
    RedirectScheme
    | RedirectRegex
    | StripPrefix
    | StripPrefixRegex
    | AddPrefix
    | ReplacePath
    | ReplacePathRegex
    | Headers
    | Compress
    | ErrorPages
    | BasicAuth
    | ForwardAuth
    | IpAllowList
    | RateLimit
    | InFlightReq
    | BodyLimit
    | Retry
    | Chain
    | Deny
)


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
    """What of a request says which task it goes to; where it has no such thing, the client's address."""

    header: str = ""  # lower case
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How endpoints are asked whether they are well; without a path, and not gRPC, they are not asked."""

    path: str = ""  # and query
    port: int = 0  # 0: the service's own
    interval: float = 30.0
    unwell_interval: float = 0.0  # of an endpoint that does not pass; 0: the same
    timeout: float = 5.0
    scheme: Scheme | None = None  # None: the service's own
    host: str = ""  # "": the endpoint's address
    method: str = "GET"
    statuses: frozenset[int] = frozenset()  # of one that is well; none: 200 to 399
    headers: tuple[tuple[str, str], ...] = ()
    follow: bool = True  # redirects
    grpc: bool = False  # ask as grpc.health.v1 has it


@dataclass(frozen=True, slots=True)
class HttpService:
    """Tasks of one Swarm service on one port. Times in seconds."""

    name: str
    owner: str  # Swarm service id
    port: int
    scheme: Scheme = Scheme.HTTP
    tls_verify: bool = True  # the tasks' certificates, where they speak https
    tls_name: str = ""  # that is in them
    tls_ca: str = ""  # file with the authorities to believe; "": the system's
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
    scope: str = ""  # whose name it is: the stack's

    @property
    def key(self) -> str:
        """Its name in the whole Swarm: several stacks may have a service of the same name."""
        return f"{self.name}@{self.scope}" if self.scope else self.name


# --- routers ---


@dataclass(frozen=True, slots=True)
class Router:
    """As declared: references not followed yet."""

    name: str
    owner: str
    rule: str
    match: Matcher
    entrypoints: tuple[str, ...] = ()  # none: all
    service: str = ""  # "": the owner's only one
    middlewares: tuple[str, ...] = ()
    priority: int = 0
    tls: bool = False
    issued: bool = False  # its certificates are to be had from the authority (ACME)
    domains: tuple[tuple[str, ...], ...] = ()  # names in one certificate each; none: the rule's hosts
    fault: str = ""  # why it is not served although its rule can be read


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A router with everything found that it names."""

    name: str
    owner: str
    rule: str
    match: Matcher
    entrypoints: tuple[str, ...]
    service: str
    middlewares: tuple[Middleware, ...]
    priority: int
    tls: bool
    certificates: tuple[tuple[str, ...], ...] = ()  # that the authority is to issue for it: their names
    target: str = ""  # key of `service`
    scope: str = ""  # whose it is: the stack's name
    seniority: float = 0.0  # since when its stack has had what it matches
    breadth: int = -1  # `claims.Breadth` of its widest part; -1: by its hosts
    closed: bool = False  # it is less guarded than was asked for: whoever comes by it is turned away


@dataclass(frozen=True, slots=True)
class Declared:
    """What one Swarm service's labels say."""

    routers: Mapping[str, Router] = field(default_factory=dict)
    services: Mapping[str, HttpService] = field(default_factory=dict)
    middlewares: Mapping[str, Middleware] = field(default_factory=dict)
    faulty: frozenset[tuple[str, str]] = frozenset()  # kind and name of what was meant and cannot be made
    scope: str = ""  # whose its names are: the stack's

    def __bool__(self) -> bool:
        return bool(self.routers or self.services or self.middlewares or self.faulty)
