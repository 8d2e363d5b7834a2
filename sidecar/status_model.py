"""What the process tells people about itself, as values: app makes them, the admin API sends them as JSON,
tables and page show them."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class SourceView:
    """Where the catalogue comes from. `age`: seconds since it was last confirmed, None if never."""

    kind: str
    connected: bool
    age: float | None = None
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class FeedView:
    """The catalogue between nodes: a manager serves it, a worker follows it; neither on a file source."""

    following: str = ""  # the manager whose feed is followed, "" while none can be reached
    serving: bool = False
    clients: int = 0
    refused: int = 0  # who came without a certificate of this cluster
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class ContainerView:
    id: str
    name: str
    captured: bool
    reason: str = ""  # why not, or what went wrong
    failed: bool = False  # it should be captured


class PortCarrier(StrEnum):
    """How a published port is carried."""

    KERNEL = "kernel"
    PROXY = "proxy"
    HTTP = "http"
    DOCKER = "docker"  # left to Docker: host mode, or mesh.enable=false
    TAKEN = "taken"  # somebody else holds it


@dataclass(frozen=True, slots=True)
class PortView:
    published: int
    protocol: str
    service: str
    mode: PortCarrier
    note: str = ""  # who holds a taken port, why it is left to Docker
    serving: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class ListenerView:
    """A socket of the process. `error`: why it is not bound, "" when it is."""

    name: str  # dns, metrics, admin, feed
    address: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class LimitsView:
    """What the process uses, and may use. None: no limit, or it cannot be seen. Memory (bytes) and processes
    are those of its control group, all processes of the sidecar together."""

    descriptors: int | None = None
    descriptors_max: int | None = None  # soft limit
    descriptors_hard: int | None = None
    memory: int | None = None
    memory_max: int | None = None
    processes: int | None = None  # and threads
    processes_max: int | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    version: str
    node: str
    role: str  # manager, worker, or "" when the source does not say
    started: float  # seconds since the epoch
    catalog_version: int
    source: SourceView
    feed: FeedView | None = None
    containers: tuple[ContainerView, ...] = ()
    ports: tuple[PortView, ...] = ()
    listeners: tuple[ListenerView, ...] = ()
    problems: tuple[str, ...] = ()  # of configuration, catalogue and labels
    limits: LimitsView = LimitsView()


@dataclass(frozen=True, slots=True)
class ResolvedRecord:
    name: str
    type: str
    ttl: int
    data: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What an asker gets for a name, and why."""

    name: str
    type: str
    asker: str
    networks: tuple[str, ...]  # on which the asker is, by name
    rcode: str
    source: str = ""  # local, forward
    answers: tuple[ResolvedRecord, ...] = ()
    why: tuple[str, ...] = ()  # one sentence per step
    docker: "ReplyView | None" = None  # what Docker's own resolver of that container says; None: nothing


@dataclass(frozen=True, slots=True)
class ReplyView:
    rcode: str
    answers: tuple[ResolvedRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteView:
    """A router of host-routed HTTP, with what it leads to."""

    name: str
    rule: str
    entrypoints: tuple[str, ...]  # that it is served on
    priority: int
    service: str
    middlewares: tuple[str, ...]
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Routes:
    routes: tuple[RouteView, ...]


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    address: str
    requests: int  # under way
    ejected_for: float  # seconds more
    why: str = ""  # its last failure, while it is left out
    unwell: str = ""  # what its check found, where it does not pass


@dataclass(frozen=True, slots=True)
class HttpAtEntry:
    """What an entry point would do with a request; without a router its answer is in `note`."""

    entrypoint: str
    router: str = ""
    rule: str = ""
    priority: int = 0
    middlewares: tuple[str, ...] = ()
    service: str = ""
    network: str = ""
    endpoints: tuple[HttpEndpoint, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class HttpExplained:
    method: str
    host: str
    path: str  # as rules see it
    entrypoints: tuple[HttpAtEntry, ...]
