"""How the process is configured: defaults, over them `mesh.yml`, then MESH_* variables, then flags.

Strategy: every layer is first only a set of (place, value, blame). The layers are laid over each other, the
result is checked once as a whole, and each fault is reported with the file and key, the variable or the flag
that said it (`config_layers`). All of it is pure; `load` is the one function that reads a file and the host's
name.
"""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from mesh.catalog.documents import Location, dotted
from mesh.catalog.partial_check import check_partly
from mesh.dns.config import GATEWAY, RESOLV_CONF, UPSTREAMS_CONFIGURED_MAX
from mesh.dns.forward.route import DNS_PORT, BadServer, parse_server
from mesh.dns.name_policy import ANSWER_TTL, Elsewhere, NamePolicy, Order, SharedAlias
from mesh.errors import ConfigError, Problem
from mesh.http.hosts.assigned import pattern
from mesh.labels.dns import TTL_MAX
from mesh.parsing import parse_port
from sidecar import config_layers
from sidecar.addresses import Address as Address
from sidecar.addresses import ListenAddress as ListenAddress
from sidecar.addresses import UnixSocket as UnixSocket
from sidecar.addresses import is_port, socket_path
from sidecar.addresses import parse_address as parse_address
from sidecar.addresses import parse_listen_address as parse_listen_address
from sidecar.config_layers import VARIABLES as VARIABLES
from sidecar.encoded_characters import Encoded

UPSTREAM_FORMS = "must be ADDR, ADDR:PORT or tls://ADDR[:PORT][#NAME] with an IP address"
ADMIN_SOCKET = "/run/mesh/admin.sock"
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
MAX_WORKERS = 64  # of a kind; of DNS each has a copy of the catalogue
MAX_EDGE_MEMORY = 1024 * 1024  # MiB
MAX_ENTRYPOINTS = 32  # addresses
MAX_HOSTS = 10_000  # patterns; each is looked up by itself
MAX_TRUSTED = 64  # networks; each new connection is compared with all of them
MAX_CACHE = 1_000_000  # replies; about 1 KB each


class DiscoveryKind(StrEnum):
    DOCKER = "docker"
    FILE = "file"


class CaptureMode(StrEnum):
    """Which containers of this node get our resolver and VIPs."""

    ALL = "all"
    LABELLED = "labelled"  # only with mesh.capture=on
    OFF = "off"


class PortMode(StrEnum):
    """How a published port is carried when its service does not say."""

    KERNEL = "kernel"
    PROXY = "proxy"


class OverIpv6(StrEnum):
    """Whether published ports are opened on IPv6, which Docker does not do."""

    AUTO = "auto"  # where the host's ip6tables have a DOCKER-USER to ask
    TRUE = "true"  # also where they have none
    FALSE = "false"


def _over_ipv6(value: object) -> object:
    return str(value).lower() if isinstance(value, bool | str) else value


class UpstreamOrder(StrEnum):
    """Which upstream is asked first."""

    LISTED = "listed"  # the first, as libc and Docker do; the others when it fails
    FASTEST = "fastest"  # whichever; any of them knows what the others know


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _listen(value: object) -> Address:
    gateway, _, port = value.partition(":") if isinstance(value, str) else ("", "", "")
    if gateway == GATEWAY and is_port(port):
        return Address(GATEWAY, parse_port(port, 0))
    try:
        return parse_address(value)
    except ValueError as error:
        raise ValueError(f"{error} (or {GATEWAY}:PORT)") from None


def _upstream(value: object) -> str:
    """The server as text, in the shortest form."""
    if not isinstance(value, str):
        raise ValueError(f"{UPSTREAM_FORMS}, not {value!r}")
    try:
        return str(parse_server(value))
    except BadServer:
        raise ValueError(f"{UPSTREAM_FORMS}, not '{value}'") from None


def _loopback(value: object) -> Address | None:
    if value is None or value == "":
        return None
    address = parse_address(value)
    if not address.is_loopback:
        raise ValueError(f"must be on loopback, not '{address}': the admin API asks nobody for a password")
    return address


def _ip(value: object) -> str:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ValueError(f"must be an IP address, not '{value}'") from None


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Listen: TypeAlias = Annotated[Address, BeforeValidator(_listen)]
Plain: TypeAlias = Annotated[Address, BeforeValidator(parse_address)]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Discovery:
    __pydantic_config__ = _STRICT
    kind: DiscoveryKind = DiscoveryKind.DOCKER
    path: str = ""  # of the catalogue, for kind file


@dataclass(frozen=True, slots=True)
class Dns:
    __pydantic_config__ = _STRICT
    listen: Annotated[tuple[Listen, ...], BeforeValidator(_one_or_many)] = (Address(GATEWAY, DNS_PORT),)
    upstreams: Annotated[  # empty: those of the host's resolv.conf
        tuple[Annotated[str, BeforeValidator(_upstream)], ...],
        BeforeValidator(_one_or_many),
        Field(max_length=UPSTREAMS_CONFIGURED_MAX),
    ] = ()
    ttl: Annotated[int, Field(ge=0, le=TTL_MAX)] = ANSWER_TTL  # seconds, of answers about this cluster
    cache: Annotated[int, Field(ge=0, le=MAX_CACHE)] = 10_000  # replies kept
    query_log: Annotated[float, Field(ge=0, le=1)] = 0.0  # the share of queries that is logged
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1  # processes that answer, this one included
    shared_alias: SharedAlias = SharedAlias.OWN_STACK
    empty_services: Elsewhere = Elsewhere.NODATA
    other_types: Elsewhere = Elsewhere.NODATA
    vip_ptr: bool = True
    srv: bool = True
    order: Order = Order.ROTATE
    upstream_order: UpstreamOrder = UpstreamOrder.LISTED
    mixed_case: bool = True  # names go to upstreams in random case, and replies must keep it
    resolv_conf: Annotated[str, Field(min_length=1)] = RESOLV_CONF  # names the upstreams where none are set

    @property
    def names(self) -> NamePolicy:
        return NamePolicy(
            shared_alias=self.shared_alias,
            empty_services=self.empty_services,
            other_types=self.other_types,
            vip_ptr=self.vip_ptr,
            srv=self.srv,
            ttl=self.ttl,
            order=self.order,
        )


@dataclass(frozen=True, slots=True)
class IngressConfig:
    __pydantic_config__ = _STRICT
    listen: Annotated[str, BeforeValidator(_ip)] = "0.0.0.0"
    mode: PortMode = PortMode.KERNEL
    ipv6: Annotated[OverIpv6, BeforeValidator(_over_ipv6)] = OverIpv6.AUTO  # with `listen` every address
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1  # processes that relay


@dataclass(frozen=True, slots=True)
class EntryPointAddress:
    """An address of an entry point, as routers call it."""

    name: str
    address: Address
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.name}={self.address}{'/tls' if self.tls else ''}"


def _entry(value: object) -> EntryPointAddress:
    if isinstance(value, EntryPointAddress):
        return value
    name, sign, place = value.partition("=") if isinstance(value, str) else ("", "", "")
    if not sign or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"must be NAME=ADDR:PORT or NAME=ADDR:PORT/tls, not {value!r}")
    address, slash, tls = place.partition("/")
    if slash and tls != "tls":
        raise ValueError(f"must end with /tls or the port, not {value!r}")
    return EntryPointAddress(name.lower(), parse_address(address), bool(tls))


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError:
        raise ValueError(f"must be a network such as 10.0.0.0/8, not '{value}'") from None


def _hosts(value: object) -> object:
    """Stack → patterns; also a list of STACK=PATTERN, as the variable has it."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        found: dict[str, list[str]] = {}
        for one in value:
            stack, sign, host = one.partition("=") if isinstance(one, str) else ("", "", "")
            if not sign or not stack.strip():
                raise ValueError(f"must be STACK=HOST, not {one!r}")
            found.setdefault(stack.strip(), []).append(host)
        value = found
    if not isinstance(value, Mapping):
        raise ValueError("must be hosts by stack, such as {shop: [shop.example, '*.shop.example']}")
    return _checked_hosts({str(stack): _one_or_many(hosts) for stack, hosts in value.items()})


def _checked_hosts(hosts: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    known: dict[str, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for stack, patterns in hosts.items():
        if not isinstance(patterns, list | tuple) or not all(isinstance(one, str) for one in patterns):
            raise ValueError(f"{stack} must have a list of hosts, not {patterns!r}")
        found[stack] = tuple(map(pattern, patterns))
        for one in found[stack]:
            if known.setdefault(one, stack) != stack:
                raise ValueError(f"{one} is given to {known[one]} and to {stack}")
    if len(known) > MAX_HOSTS:
        raise ValueError(f"more than {MAX_HOSTS} hosts")
    return found


def _directory(value: object) -> str:
    text = str(value)
    if text and not text.startswith("https://"):
        raise ValueError(f"must be an https URL such as {LETS_ENCRYPT}, not '{text}'")
    return text


class AccessLog(StrEnum):
    OFF = "off"
    JSON = "json"
    COMMON = "common"


@dataclass(frozen=True, slots=True)
class Acme:
    """Certificates from an authority (RFC 8555); nothing without a directory."""

    __pydantic_config__ = _STRICT
    directory: Annotated[str, BeforeValidator(_directory)] = ""  # its URL; to set it is to agree to its terms
    email: str = ""  # where it writes to when something is wrong
    ca: str = ""  # PEM file by which it is known itself; "": as public ones are


@dataclass(frozen=True, slots=True)
class Http:
    """Host-routed HTTP; nothing without entry points."""

    __pydantic_config__ = _STRICT
    entrypoints: Annotated[
        tuple[Annotated[EntryPointAddress, BeforeValidator(_entry)], ...],
        BeforeValidator(_one_or_many),
        Field(max_length=MAX_ENTRYPOINTS),
    ] = ()
    encoded_characters: Mapping[str, Encoded] = field(default_factory=dict)  # by entry point
    exposed_by_default: bool = True  # services with labels for it, without traefik.enable
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1  # processes that serve
    trusted: Annotated[
        tuple[Annotated[str, BeforeValidator(_network)], ...],
        BeforeValidator(_one_or_many),
        Field(max_length=MAX_TRUSTED),
    ] = ()  # proxies in front whose X-Forwarded-* are believed
    # Stack → hosts that it alone may claim; without, a host is whose it has been.
    hosts: Annotated[Mapping[str, tuple[str, ...]], BeforeValidator(_hosts)] = field(default_factory=dict)
    # Of what labels must not send us to otherwise: loopback, link-local, the node's own addresses.
    allow_internal_targets: Annotated[
        tuple[Annotated[str, BeforeValidator(_network)], ...],
        BeforeValidator(_one_or_many),
        Field(max_length=MAX_TRUSTED),
    ] = ()
    certificates: str = "/run/secrets"  # folder with certificates and keys for /tls
    acme: Acme = field(default_factory=Acme)
    # Of a client's address to a listener; 0: any. More than people behind one have, a tenth of what there is.
    connections_per_address: Annotated[int, Field(ge=0, le=20_000)] = 2000
    tunnel: Plain = Address("0.0.0.0", 9183)  # for other nodes' sidecars, to tasks on this one
    access_log: AccessLog = AccessLog.OFF
    access_log_sample: Annotated[float, Field(ge=0, le=1)] = 1.0  # the share of requests that is logged


@dataclass(frozen=True, slots=True)
class Metrics:
    __pydantic_config__ = _STRICT
    listen: Plain = Address("0.0.0.0", 9180)


@dataclass(frozen=True, slots=True)
class Admin:
    """The JSON API and the status page: whoever reaches them may read everything."""

    __pydantic_config__ = _STRICT
    listen: Annotated[Address | None, BeforeValidator(_loopback)] = None  # over TCP as well; on loopback
    socket: Annotated[str, BeforeValidator(socket_path)] = ADMIN_SOCKET  # "": none

    @property
    def places(self) -> tuple[ListenAddress, ...]:
        """Where it listens; the first is the one to ask."""
        tcp = () if self.listen is None else (self.listen,)
        return (UnixSocket(self.socket), *tcp) if self.socket else tcp


@dataclass(frozen=True, slots=True)
class FeedConfig:
    __pydantic_config__ = _STRICT
    listen: Plain = Address("0.0.0.0", 9182)  # on managers


@dataclass(frozen=True, slots=True)
class Docker:
    __pydantic_config__ = _STRICT
    socket: str = "/var/run/docker.sock"
    netns: str = "/var/run/docker/netns"
    certificates: str = "/var/lib/docker/swarm/certificates"
    service: str = (
        ""  # id of the Swarm service that runs this sidecar, by which an update is told from a removal
    )


@dataclass(frozen=True, slots=True)
class Edge:
    """The processes that read what strangers send: HTTP and relayed ports. Where the sidecar is root they are
    this user, whom nothing else on the node should be."""

    __pydantic_config__ = _STRICT
    uid: Annotated[int, Field(ge=1, lt=2**31)] = 59_180
    gid: Annotated[int, Field(ge=1, lt=2**31)] = 59_180
    memory: Annotated[int, Field(ge=0, le=MAX_EDGE_MEMORY)] = 512  # MiB of data in each process; 0: no limit


@dataclass(frozen=True, slots=True)
class Log:
    __pydantic_config__ = _STRICT
    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.JSON


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set. Its fields are the keys of mesh.yml."""

    __pydantic_config__ = _STRICT
    node: str = ""  # `load` fills in the host's name
    discovery: Discovery = field(default_factory=Discovery)
    dns: Dns = field(default_factory=Dns)
    capture: CaptureMode = CaptureMode.ALL
    ingress: IngressConfig = field(default_factory=IngressConfig)
    http: Http = field(default_factory=Http)
    metrics: Metrics = field(default_factory=Metrics)
    admin: Admin = field(default_factory=Admin)
    feed: FeedConfig = field(default_factory=FeedConfig)
    docker: Docker = field(default_factory=Docker)
    edge: Edge = field(default_factory=Edge)
    log: Log = field(default_factory=Log)
    state_dir: str = "/var/lib/mesh"


def load(
    path: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str | None] | None = None,
) -> Config:
    """The configuration of this process. `flags`: option name without dashes → value, None when not given.

    Raises ConfigError with every problem of every layer.
    """
    environment = os.environ if environment is None else environment
    path = path or environment.get("MESH_CONFIG") or None
    text = "" if path is None else read_file(path)
    return build(
        text, path or "", environment, flags or {}, socket.gethostname(), admin_socket_of(environment)
    )


def admin_socket_of(environment: Mapping[str, str], uid: int | None = None) -> str:
    """The default path of the admin socket: root's, or one in the user's own folder for runtime files
    (XDG Base Directory Specification); "" where there is no such folder."""
    if (os.geteuid() if uid is None else uid) == 0:
        return ADMIN_SOCKET
    folder = environment.get("XDG_RUNTIME_DIR", "")
    return f"{folder}/mesh/admin.sock" if folder.startswith("/") else ""


def read_file(path: str) -> str:
    """Raises ConfigError naming the file when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError([Problem(path, "", f"cannot be read: {reason}")]) from error


def build(
    text: str,
    file: str,
    environment: Mapping[str, str],
    flags: Mapping[str, str | None],
    hostname: str,
    admin_socket: str = ADMIN_SOCKET,
) -> Config:
    """The same without touching anything outside. `text` and `file`: mesh.yml, "" when there is none."""
    document, problems = config_layers.from_document(text, file)
    unknown, from_environment = config_layers.from_environment(environment)
    settings = [*from_environment, *config_layers.from_flags(flags)]
    layered, blames = config_layers.lay_over(document, settings)
    layered.setdefault("node", hostname)
    if isinstance(admin := layered.setdefault("admin", {}), dict):
        admin.setdefault("socket", admin_socket)

    def blame(location: Location) -> tuple[str, str]:
        return config_layers.blame_of(location, blames) or (file or "defaults", dotted(location))

    checked = check_partly(Config, layered, blame)
    problems = [*problems, *unknown, *checked.problems]
    if checked.value is not None:
        faults = (found for rule in _RULES for found in rule(checked.value, checked.is_faulty))
        problems += [Problem(*blame(checked.located(place)), message) for place, message in faults]
    if problems or checked.value is None:
        raise ConfigError(problems)
    return checked.value


# --- sense across keys: each rule yields (location, message) ------------------------------------------------

Faults: TypeAlias = Iterator[tuple[Location, str]]
IsFaulty: TypeAlias = Callable[..., bool]  # has a key a wrong shape? Then its default says nothing


def _kind_and_path_belong_together(config: Config, is_faulty: IsFaulty) -> Faults:
    discovery = config.discovery
    if is_faulty("discovery", "kind") or is_faulty("discovery", "path"):
        return
    if discovery.kind is DiscoveryKind.FILE and not discovery.path:
        yield ("discovery", "kind"), "kind file needs the catalogue's path (discovery.path)"
    if discovery.kind is DiscoveryKind.DOCKER and discovery.path:
        yield ("discovery", "path"), "belongs to kind: file; this is kind: docker"


def _an_entry_point_is_with_tls_or_without(config: Config, _: IsFaulty) -> Faults:
    kinds: dict[str, bool] = {}
    for index, entry in enumerate(config.http.entrypoints):
        if kinds.setdefault(entry.name, entry.tls) is not entry.tls:
            message = f"entry point {entry.name} is with TLS at one address and without at another"
            yield ("http", "entrypoints", index), message


def _entry_points_exist(config: Config, is_faulty: IsFaulty) -> Faults:
    if is_faulty("http", "entrypoints"):
        return
    names = [entry.name for entry in config.http.entrypoints]
    for name in config.http.encoded_characters.keys() - set(names):
        known = ", ".join(dict.fromkeys(names)) or "none"
        yield ("http", "encoded_characters", name), f"there is no entry point {name!r} (known are {known})"


def _acme_has_its_entry_points(config: Config, is_faulty: IsFaulty) -> Faults:
    if is_faulty("http", "entrypoints"):
        return
    if config.http.acme.directory and {entry.tls for entry in config.http.entrypoints} != {True, False}:
        message = "needs an entry point without TLS, where names are proven, and one with (http.entrypoints)"
        yield ("http", "acme", "directory"), message


def _listeners_do_not_clash(config: Config, is_faulty: IsFaulty) -> Faults:
    """Two HTTP listeners in one place: the second could never be bound."""
    listeners = [
        ("metrics", config.metrics.listen),
        *([("admin", config.admin.listen)] if config.admin.listen is not None else []),
        ("feed", config.feed.listen),
    ]
    listeners = [(name, address) for name, address in listeners if not is_faulty(name, "listen")]
    for index, (name, address) in enumerate(listeners):
        for other, earlier in listeners[:index]:
            same_host = earlier.host == address.host or earlier.is_any or address.is_any
            if address.port and earlier.port == address.port and same_host:
                yield (name, "listen"), f"{address} is already {other}.listen's ({earlier})"


_RULES: tuple[Callable[[Config, IsFaulty], Faults], ...] = (
    _kind_and_path_belong_together,
    _an_entry_point_is_with_tls_or_without,
    _entry_points_exist,
    _acme_has_its_entry_points,
    _listeners_do_not_clash,
)
