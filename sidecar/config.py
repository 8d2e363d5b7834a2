"""How the process is configured: defaults, over them `mesh.yml`, then MESH_* variables, then flags.

Strategy: every layer is first only a set of (place, value, blame). The layers are laid over each other, the
result is checked once as a whole, and each fault is reported with the file and key, the variable or the flag
that said it. All of it is pure; `load` is the one function that reads a file and the host's name.
"""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from mesh.catalog.documents import Location, check, dotted, read_yaml, suggestion
from mesh.dns.config import GATEWAY, RESOLV_CONF, UPSTREAMS_CONFIGURED_MAX
from mesh.dns.labels import TTL_MAX
from mesh.dns.policy import ANSWER_TTL, Elsewhere, NamePolicy, Order, SharedAlias
from mesh.dns.upstream.servers import DNS_PORT, BadServer, parse_server
from mesh.errors import ConfigError, Problem
from mesh.http.assigned_hosts import pattern
from mesh.parsing import PORT_MAX, is_int, parse_port
from sidecar.encoded_characters import Encoded, by_entry_point

UPSTREAM_FORMS = "must be ADDR, ADDR:PORT or tls://ADDR[:PORT][#NAME] with an IP address"
ADMIN_SOCKET = "/run/mesh/admin.sock"
UNIX = "unix:"  # before the path of a unix socket, where an address may stand as well
MAX_SOCKET_PATH = 107  # bytes: sun_path of unix(7) with its closing zero
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


class Capture(StrEnum):
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


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address (or `gateway`) and a port; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_gateway(self) -> bool:
        return self.host == GATEWAY

    @property
    def is_loopback(self) -> bool:
        return not self.is_gateway and ipaddress.ip_address(self.host).is_loopback

    @property
    def is_any(self) -> bool:
        return not self.is_gateway and ipaddress.ip_address(self.host).is_unspecified


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"


# Where a surface listens, or is asked.
ListenAddress: TypeAlias = Address | UnixSocket


def parse_listen_address(text: str) -> ListenAddress:
    """ADDR:PORT, or the path of a unix socket with or without `unix:`. Raises ValueError."""
    path = text.removeprefix(UNIX)
    if path.startswith("/"):
        return UnixSocket(_socket_path(path))
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"{error}, or the path of a unix socket") from None


def parse_address(text: object, default_port: int | None = None) -> Address:
    """ADDR:PORT, [ADDR6]:PORT, and ADDR alone where there is a default port. Raises ValueError."""
    if isinstance(text, Address):
        return text
    wanted = "must be ADDR:PORT with an IP address"
    if not isinstance(text, str):
        raise ValueError(f"{wanted}, not {text!r}")
    host, port = _split(text, default_port)
    if not _is_port(port):
        raise ValueError(f"{wanted} and a port up to 65535, not '{text}'")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{wanted}, not '{text}'") from None
    return Address(host, parse_port(port, 0))


def _is_port(text: str) -> bool:
    return len(text) <= 5 and is_int(text, 0, PORT_MAX)


def _split(text: str, default_port: int | None) -> tuple[str, str]:
    bare = text.removeprefix("[").removesuffix("]")
    if default_port is not None and (bare.count(":") != 1 and "]:" not in text):
        return bare, str(default_port)
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _listen(value: object) -> Address:
    gateway, _, port = value.partition(":") if isinstance(value, str) else ("", "", "")
    if gateway == GATEWAY and _is_port(port):
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


def _socket_path(value: object) -> str:
    path = str(value).removeprefix(UNIX)
    if path in ("", "off"):
        return ""
    if not path.startswith("/") or len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(
            f"must be a path that begins with / and has at most {MAX_SOCKET_PATH} bytes, or off, not '{path}'"
        )
    return path


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
class Ingress:
    __pydantic_config__ = _STRICT
    listen: Annotated[str, BeforeValidator(_ip)] = "0.0.0.0"
    mode: PortMode = PortMode.KERNEL
    ipv6: Annotated[OverIpv6, BeforeValidator(_over_ipv6)] = OverIpv6.AUTO  # with `listen` every address
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1  # processes that relay


@dataclass(frozen=True, slots=True)
class Entry:
    """An address of an entry point, as routers call it."""

    name: str
    address: Address
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.name}={self.address}{'/tls' if self.tls else ''}"


def _entry(value: object) -> Entry:
    if isinstance(value, Entry):
        return value
    name, sign, place = value.partition("=") if isinstance(value, str) else ("", "", "")
    if not sign or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"must be NAME=ADDR:PORT or NAME=ADDR:PORT/tls, not {value!r}")
    address, slash, tls = place.partition("/")
    if slash and tls != "tls":
        raise ValueError(f"must end with /tls or the port, not {value!r}")
    return Entry(name.lower(), parse_address(address), bool(tls))


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
        tuple[Annotated[Entry, BeforeValidator(_entry)], ...],
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
    socket: Annotated[str, BeforeValidator(_socket_path)] = ADMIN_SOCKET  # "": none

    @property
    def places(self) -> tuple[ListenAddress, ...]:
        """Where it listens; the first is the one to ask."""
        tcp = () if self.listen is None else (self.listen,)
        return (UnixSocket(self.socket), *tcp) if self.socket else tcp


@dataclass(frozen=True, slots=True)
class Feed:
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
    capture: Capture = Capture.ALL
    ingress: Ingress = field(default_factory=Ingress)
    http: Http = field(default_factory=Http)
    metrics: Metrics = field(default_factory=Metrics)
    admin: Admin = field(default_factory=Admin)
    feed: Feed = field(default_factory=Feed)
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
    document, problems = _document(text, file)
    unknown, from_environment = _environment(environment)
    settings = [*from_environment, *_flags(flags)]
    layered, blames = _lay_over(document, settings)
    layered.setdefault("node", hostname)
    if isinstance(admin := layered.setdefault("admin", {}), dict):
        admin.setdefault("socket", admin_socket)

    def blame(location: Location) -> tuple[str, str]:
        return _blame(location, blames) or (file or "defaults", dotted(location))

    try:
        config = check(Config, layered, blame)
    except ConfigError as error:
        raise ConfigError([*problems, *unknown, *error.problems]) from error
    problems = [*problems, *unknown, *_sense(config, blame)]
    if problems:
        raise ConfigError(problems)
    return config


# --- the layers: what each of them says, and under which name -----------------------------------------------


@dataclass(frozen=True, slots=True)
class _Setting:
    location: tuple[str, ...]
    value: object
    blame: tuple[str, str]  # file and key of the problem, should there be one


def _csv(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _same(text: str) -> str:
    return text


VARIABLES: Mapping[str, tuple[tuple[str, ...], Callable[[str], object]]] = {
    "MESH_NODE": (("node",), _same),
    "MESH_DISCOVERY_KIND": (("discovery", "kind"), _same),
    "MESH_DISCOVERY_PATH": (("discovery", "path"), _same),
    "MESH_DNS_LISTEN": (("dns", "listen"), _csv),
    "MESH_DNS_UPSTREAMS": (("dns", "upstreams"), _csv),
    "MESH_DNS_UPSTREAM_ORDER": (("dns", "upstream_order"), _same),
    "MESH_DNS_MIXED_CASE": (("dns", "mixed_case"), _same),
    "MESH_DNS_RESOLV_CONF": (("dns", "resolv_conf"), _same),
    "MESH_DNS_TTL": (("dns", "ttl"), _same),
    "MESH_DNS_CACHE": (("dns", "cache"), _same),
    "MESH_DNS_QUERY_LOG": (("dns", "query_log"), _same),
    "MESH_DNS_WORKERS": (("dns", "workers"), _same),
    "MESH_DNS_SHARED_ALIAS": (("dns", "shared_alias"), _same),
    "MESH_DNS_EMPTY_SERVICES": (("dns", "empty_services"), _same),
    "MESH_DNS_OTHER_TYPES": (("dns", "other_types"), _same),
    "MESH_DNS_VIP_PTR": (("dns", "vip_ptr"), _same),
    "MESH_DNS_SRV": (("dns", "srv"), _same),
    "MESH_DNS_ORDER": (("dns", "order"), _same),
    "MESH_CAPTURE": (("capture",), _same),
    "MESH_INGRESS_LISTEN": (("ingress", "listen"), _same),
    "MESH_INGRESS_MODE": (("ingress", "mode"), _same),
    "MESH_INGRESS_IPV6": (("ingress", "ipv6"), _same),
    "MESH_INGRESS_WORKERS": (("ingress", "workers"), _same),
    "MESH_HTTP_ENTRYPOINTS": (("http", "entrypoints"), _csv),
    "MESH_HTTP_ENCODED_CHARACTERS": (("http", "encoded_characters"), by_entry_point),
    "MESH_HTTP_EXPOSED_BY_DEFAULT": (("http", "exposed_by_default"), _same),
    "MESH_HTTP_CERTIFICATES": (("http", "certificates"), _same),
    "MESH_HTTP_CONNECTIONS_PER_ADDRESS": (("http", "connections_per_address"), _same),
    "MESH_HTTP_HOSTS": (("http", "hosts"), _csv),
    "MESH_HTTP_ALLOW_INTERNAL_TARGETS": (("http", "allow_internal_targets"), _csv),
    "MESH_HTTP_ACME_DIRECTORY": (("http", "acme", "directory"), _same),
    "MESH_HTTP_ACME_EMAIL": (("http", "acme", "email"), _same),
    "MESH_HTTP_ACME_CA": (("http", "acme", "ca"), _same),
    "MESH_HTTP_TUNNEL": (("http", "tunnel"), _same),
    "MESH_HTTP_WORKERS": (("http", "workers"), _same),
    "MESH_HTTP_TRUSTED": (("http", "trusted"), _csv),
    "MESH_HTTP_ACCESS_LOG": (("http", "access_log"), _same),
    "MESH_HTTP_ACCESS_LOG_SAMPLE": (("http", "access_log_sample"), _same),
    "MESH_METRICS_LISTEN": (("metrics", "listen"), _same),
    "MESH_ADMIN_LISTEN": (("admin", "listen"), _same),
    "MESH_ADMIN_SOCKET": (("admin", "socket"), _same),
    "MESH_FEED_LISTEN": (("feed", "listen"), _same),
    "MESH_STATE_DIR": (("state_dir",), _same),
    "MESH_DOCKER_SOCKET": (("docker", "socket"), _same),
    "MESH_DOCKER_NETNS": (("docker", "netns"), _same),
    "MESH_DOCKER_CERTIFICATES": (("docker", "certificates"), _same),
    "MESH_DOCKER_SERVICE": (("docker", "service"), _same),
    "MESH_EDGE_UID": (("edge", "uid"), _same),
    "MESH_EDGE_GID": (("edge", "gid"), _same),
    "MESH_EDGE_MEMORY": (("edge", "memory"), _same),
    "MESH_LOG_LEVEL": (("log", "level"), _same),
    "MESH_LOG_FORMAT": (("log", "format"), _same),
}
# Read elsewhere; the last two by the stack file.
_NOT_SETTINGS = {"MESH_CONFIG", "MESH_CATALOG", "MESH_IMAGE", "MESH_RESOLV_CONF"}
_NOT_OURS = "MESH_LAB"  # and whatever follows: the lab's


def _document(text: str, file: str) -> tuple[dict[str, Any], list[Problem]]:
    """The file's layer, or its problems: the other layers are still looked at."""
    try:
        document = read_yaml(text, file)
    except ConfigError as error:
        return {}, list(error.problems)
    discovery = document.get("discovery")
    if isinstance(discovery, dict) and isinstance(path := discovery.get("path"), str):
        document["discovery"] = discovery | {"path": str(Path(file).parent / path)}  # as in compose files
    return document, []


def _environment(environment: Mapping[str, str]) -> tuple[list[Problem], list[_Setting]]:
    """An empty variable is an unset one: stack files pass `${MESH_X:-}`."""
    problems, settings = [], []
    for name, value in sorted(environment.items()):
        if not name.startswith("MESH_") or not value or name in _NOT_SETTINGS or name.startswith(_NOT_OURS):
            continue
        if name not in VARIABLES:
            problems.append(Problem("environment", name, f"unknown variable{suggestion(name, VARIABLES)}"))
            continue
        location, convert = VARIABLES[name]
        settings.append(_Setting(location, convert(value), ("environment", name)))
    settings.extend(_catalog(environment.get("MESH_CATALOG", ""), ("environment", "MESH_CATALOG")))
    return problems, settings


def _flags(flags: Mapping[str, str | None]) -> Iterator[_Setting]:
    for name, value in flags.items():
        if value is None:
            continue
        blame = ("command line", f"--{name}")
        if name == "catalog":
            yield from _catalog(value, blame)
        elif name == "dns":
            yield _Setting(("dns", "listen"), _csv(value), blame)
        else:
            yield _Setting((name, "listen"), value, blame)


def _catalog(path: str, blame: tuple[str, str]) -> Iterator[_Setting]:
    """Naming a catalogue is choosing the file source."""
    if path:
        yield _Setting(("discovery", "kind"), "file", blame)
        yield _Setting(("discovery", "path"), path, blame)


def _lay_over(
    document: Mapping[str, Any], settings: list[_Setting]
) -> tuple[dict[str, Any], dict[tuple[str, ...], tuple[str, str]]]:
    """The document with the settings in their places, and whom to blame for each place."""
    # a key without a value is a key left out
    result = {
        key: _given(value) if isinstance(value, dict) else value for key, value in _given(document).items()
    }
    blames: dict[tuple[str, ...], tuple[str, str]] = {}
    for setting in settings:
        *parents, last = setting.location
        place: dict[str, Any] = result
        for parent in parents:
            inner = place.get(parent)
            if inner is None:
                inner = place[parent] = {}
            if not isinstance(inner, dict):  # the file has nonsense there: let the check say so
                break
            place = inner
        else:
            place[last] = setting.value
            blames[setting.location] = setting.blame
    return result, blames


def _given(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _blame(location: Location, blames: Mapping[tuple[str, ...], tuple[str, str]]) -> tuple[str, str] | None:
    for end in range(len(location), 0, -1):
        prefix = tuple(map(str, location[:end]))
        if prefix in blames:
            return blames[prefix]
    return None


# --- sense across keys --------------------------------------------------------------------------------------


def _sense(config: Config, blame: Callable[[Location], tuple[str, str]]) -> Iterator[Problem]:
    if config.discovery.kind is DiscoveryKind.FILE and not config.discovery.path:
        yield Problem(*blame(("discovery", "kind")), "kind file needs the catalogue's path (discovery.path)")
    if config.discovery.kind is DiscoveryKind.DOCKER and config.discovery.path:
        yield Problem(*blame(("discovery", "path")), "belongs to kind: file; this is kind: docker")
    kinds: dict[str, bool] = {}
    for index, entry in enumerate(config.http.entrypoints):
        if kinds.setdefault(entry.name, entry.tls) is not entry.tls:
            message = f"entry point {entry.name} is with TLS at one address and without at another"
            yield Problem(*blame(("http", "entrypoints", index)), message)
    for name in config.http.encoded_characters.keys() - kinds.keys():
        message = f"there is no entry point {name!r} (known are {', '.join(kinds) or 'none'})"
        yield Problem(*blame(("http", "encoded_characters", name)), message)
    if config.http.acme.directory and set(kinds.values()) != {True, False}:
        message = "needs an entry point without TLS, where names are proven, and one with (http.entrypoints)"
        yield Problem(*blame(("http", "acme", "directory")), message)
    yield from _clashes(config, blame)


def _clashes(config: Config, blame: Callable[[Location], tuple[str, str]]) -> Iterator[Problem]:
    """Two HTTP listeners in one place: the second could never be bound."""
    listeners = [
        ("metrics", config.metrics.listen),
        *([("admin", config.admin.listen)] if config.admin.listen is not None else []),
        ("feed", config.feed.listen),
    ]
    for index, (name, address) in enumerate(listeners):
        for other, earlier in listeners[:index]:
            same_host = earlier.host == address.host or earlier.is_any or address.is_any
            if address.port and earlier.port == address.port and same_host:
                message = f"{address} is already {other}.listen's ({earlier})"
                yield Problem(*blame((name, "listen")), message)
