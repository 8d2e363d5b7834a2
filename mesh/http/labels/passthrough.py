"""TCP routers from Traefik's labels: TLS connections passed on as they are, by the name asked for. Pure.

    traefik.tcp.routers.R.rule=HostSNI(`a.example`) || HostSNI(`b.example`)
    traefik.tcp.routers.R.tls.passthrough=true
    traefik.tcp.services.S.loadbalancer.server.port=8443

TCP without passthrough is what published ports are for; labels that ask for it become problems that say so.
"""

import re
from dataclasses import dataclass, field, replace

from mesh.catalog.model import Service
from mesh.errors import Problem
from mesh.labels.reader import LabelReader
from mesh.labels.values import parse_strict_flag, split_words
from mesh.parsing import PORT_MAX, is_int, parse_port, shown

PREFIX = "traefik.tcp."
ANY = "*"

_CLAUSE = re.compile(r"\s*HostSNI\(\s*`([^`]*)`\s*\)\s*", re.IGNORECASE)
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")


@dataclass(frozen=True, slots=True)
class TcpService:
    """Tasks of one Swarm service on one port."""

    name: str
    owner: str  # Swarm service id
    port: int = 0
    network: str = ""  # by name; "": any
    proxy_protocol: str = ""  # of the header that tasks get: v1, v2


@dataclass(frozen=True, slots=True)
class TcpRouter:
    """`names`: lower case; `*` for any."""

    name: str
    owner: str
    names: tuple[str, ...] = ()
    entrypoints: tuple[str, ...] = ()  # none: all with TLS
    service: str = ""
    passthrough: bool = False
    scope: str = ""  # whose it is: the stack's name
    target: str = ""  # key of `service`


@dataclass(slots=True)
class TcpDeclared:
    """What one Swarm service's labels say."""

    routers: dict[str, TcpRouter] = field(default_factory=dict)
    services: dict[str, TcpService] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_tcp_labels(service: Service) -> TcpDeclared:
    """What the labels `traefik.tcp.*` declare. A router with an option that is not followed, and that
    may be what keeps others out, is left out."""
    reading = _TcpReading(service)
    for written, value in sorted(service.labels.items()):
        key = written.lower()
        if key.startswith(PREFIX):
            reading.read(written, key.removeprefix(PREFIX).split("."), value)
    reading.check_routers()
    reading.check_services()
    return reading.found


class _TcpReading:
    """What has been read of one service's labels so far."""

    def __init__(self, service: Service) -> None:
        self.found = TcpDeclared()
        self._service = service
        self._reader = LabelReader(service.name, service.labels, self.found.problems)
        self._left_out: set[str] = set()  # routers

    def read(self, written: str, parts: list[str], value: str) -> None:
        """`written`: the key of the label; `parts`: what follows the prefix."""
        if len(parts) < 3 or parts[0] not in ("routers", "services"):
            self._reader.fault(written, "unknown label; ignored")
            return
        name, option = parts[1], ".".join(parts[2:])
        if parts[0] == "services":
            self._read_service_option(written, name, option, value)
            return
        router = self.found.routers.get(name) or TcpRouter(name, self._service.id)
        try:
            self.found.routers[name] = self._with_option(router, written, option, value)
        except ValueError as error:
            self._left_out.add(name)
            self._reader.fault(written, f"{error}; the router is left out")

    def _with_option(self, router: TcpRouter, written: str, option: str, value: str) -> TcpRouter:
        """Raises ValueError: the router has to be left out."""
        match option:
            case "rule":
                return replace(router, names=_parse_rule(value))
            case "entrypoints":
                if not (entrypoints := split_words(value)):
                    raise ValueError("names no entry point (an unset variable?)")
                return replace(router, entrypoints=entrypoints)
            case "service":
                return replace(router, service=value.lower().partition("@")[0])
            case "tls.passthrough":
                return replace(router, passthrough=value == "" or parse_strict_flag(value))
            case "middlewares":
                raise ValueError("middlewares of TCP are not followed, and may be what keeps others out")
            case "tls.options" if value.lower() != "default":
                raise ValueError("TLS options are not supported, and may be what keeps others out")
            case "priority":
                why = "is not followed: an exact name comes before *.name, and that before *"
                self._reader.fault(written, why)
            case "tls" | "tls.options":
                pass
            case _ if option.startswith(("tls.certresolver", "tls.domains")):
                why = "is not followed: TLS that is passed on has the tasks' certificates"
                self._reader.fault(written, why)
            case _:
                raise ValueError("unknown option, which may be what keeps others out")
        return router

    def _read_service_option(self, written: str, name: str, option: str, value: str) -> None:
        service = self.found.services.get(name) or TcpService(name, self._service.id)
        if option == "loadbalancer.server.port" and is_int(value, 1, PORT_MAX):
            service = replace(service, port=parse_port(value))
        elif option == "loadbalancer.proxyprotocol.version" and value in ("1", "2"):
            service = replace(service, proxy_protocol=f"v{value}")
        elif option == "loadbalancer.proxyprotocol":
            service = replace(service, proxy_protocol=service.proxy_protocol or "v2")
        elif option == "loadbalancer.terminationdelay":
            why = "is not followed: a half-closed connection goes on until both have ended"
            self._reader.fault(written, why)
        else:
            self._reader.fault(written, f"{shown(value)} is not supported here; ignored")
        self.found.services[name] = service

    def check_routers(self) -> None:
        """Give each router its service; remove those that are not complete."""
        routers, services = self.found.routers, self.found.services
        for name, router in tuple(routers.items()):
            where = f"{PREFIX}routers.{name}"
            service = router.service or (next(iter(services)) if len(services) == 1 else "")
            if name in self._left_out:
                del routers[name]
            elif not router.passthrough:
                why = "is served only with tls.passthrough=true; a published port carries plain TCP"
                self._reader.fault(where, why)
                del routers[name]
            elif not router.names:
                self._reader.fault(f"{where}.rule", "is missing; the router is left out")
                del routers[name]
            elif not service:
                self._reader.fault(f"{where}.service", "must be named; the router is left out")
                del routers[name]
            else:
                routers[name] = replace(router, service=service)

    def check_services(self) -> None:
        """Give each service its network; remove those without a port."""
        services, network = self.found.services, self._network()
        for name, service in tuple(services.items()):
            if service.port:
                services[name] = replace(service, network=network)
                continue
            where = f"{PREFIX}services.{name}.loadbalancer.server.port"
            self._reader.fault(where, "is missing; no task is reached")
            del services[name]

    def _network(self) -> str:
        """The name of the network to reach tasks on; "": any."""
        for key in ("traefik.swarm.network", "traefik.docker.network"):
            for written, value in self._service.labels.items():
                if written.lower() == key:
                    return value
        return ""


def _parse_rule(rule: str) -> tuple[str, ...]:
    """The names of its HostSNI clauses, lower case."""
    names = []
    for clause in rule.split("||"):
        found = _CLAUSE.fullmatch(clause)
        name = found[1].lower().rstrip(".") if found else ""
        if name != ANY and not _NAME.fullmatch(name):
            raise ValueError("only HostSNI with a name or `*` is read, several with ||")
        names.append(name)
    return tuple(names)
