"""TCP routers from Traefik's labels: connections that are passed on with their TLS, by the name they ask for.

    traefik.tcp.routers.R.rule=HostSNI(`a.example`) || HostSNI(`b.example`)
    traefik.tcp.routers.R.tls.passthrough=true
    traefik.tcp.services.S.loadbalancer.server.port=8443

Pure. TCP without passthrough is what published ports are for; that is said of every such label.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mesh.catalog.model import Service
from mesh.errors import Problem
from mesh.parsing import PORT_MAX, is_int, parse_port, shown

PREFIX = "traefik.tcp."
ANY = "*"
PROXY_VERSIONS = ("", "v1", "v2")

_CLAUSE = re.compile(r"\s*HostSNI\(\s*`([^`]*)`\s*\)\s*", re.IGNORECASE)
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_SWITCH = {"true": True, "false": False, "1": True, "0": False, "": True}


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
    reading = _TcpReading(service)
    for written, value in sorted(service.labels.items()):
        key = written.lower()
        if key.startswith(PREFIX):
            reading.label(written, key.removeprefix(PREFIX).split("."), value)
    return reading.finished()


class _TcpReading:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.found = TcpDeclared()
        self.bad: set[str] = set()  # routers that are left out

    def label(self, written: str, parts: list[str], value: str) -> None:
        if len(parts) < 3 or parts[0] not in ("routers", "services"):
            self.fault(written, "unknown label; ignored")
        elif parts[0] == "routers":
            self._of_router(written, parts[1], ".".join(parts[2:]), value)
        else:
            self._of_service(written, parts[1], ".".join(parts[2:]), value)

    def _of_router(self, written: str, name: str, option: str, value: str) -> None:
        router = self.found.routers.get(name) or TcpRouter(name, self.service.id)
        if option == "rule":
            names = _names_of(value)
            if names is None:
                self.leave_out(written, name, "only HostSNI with a name or `*` is read, several with ||")
                return
            router = replace(router, names=names)
        elif option == "entrypoints":
            router = replace(router, entrypoints=_words(value))
            if not router.entrypoints:
                self.leave_out(written, name, "names no entry point (an unset variable?)")
                return
        elif option == "service":
            router = replace(router, service=value.lower().partition("@")[0])
        elif option == "tls.passthrough":
            if value.lower() not in _SWITCH:
                self.leave_out(written, name, f"{shown(value)} is neither true nor false")
                return
            router = replace(router, passthrough=_SWITCH[value.lower()])
        elif option == "middlewares":
            self.leave_out(
                written, name, "middlewares of TCP are not followed, and may be what keeps others out"
            )
            return
        elif option == "priority":
            self.fault(written, "is not followed: an exact name comes before *.name, and that before *")
        elif option == "tls.options" and value.lower() != "default":
            self.leave_out(written, name, "TLS options are not supported, and may be what keeps others out")
            return
        elif option.startswith(("tls.certresolver", "tls.domains")):
            self.fault(written, "is not followed: TLS that is passed on has the tasks' certificates")
        elif option not in ("tls", "tls.options"):
            self.leave_out(written, name, "unknown option, which may be what keeps others out")
            return
        self.found.routers[name] = router

    def _of_service(self, written: str, name: str, option: str, value: str) -> None:
        service = self.found.services.get(name) or TcpService(name, self.service.id)
        if option == "loadbalancer.server.port" and is_int(value, 1, PORT_MAX):
            service = replace(service, port=parse_port(value))
        elif option == "loadbalancer.proxyprotocol.version" and value in ("1", "2"):
            service = replace(service, proxy_protocol=f"v{value}")
        elif option == "loadbalancer.proxyprotocol":
            service = replace(service, proxy_protocol=service.proxy_protocol or "v2")
        elif option == "loadbalancer.terminationdelay":
            self.fault(written, "is not followed: a half-closed connection goes on until both have ended")
        else:
            self.fault(written, f"{shown(value)} is not supported here; ignored")
        self.found.services[name] = service

    def finished(self) -> TcpDeclared:
        found = self.found
        for name in self.bad:
            found.routers.pop(name, None)
        for name, router in tuple(found.routers.items()):
            where = f"{PREFIX}routers.{name}"
            service = router.service or (next(iter(found.services)) if len(found.services) == 1 else "")
            if not router.passthrough:
                why = "is served only with tls.passthrough=true; a published port carries plain TCP"
                self.fault(where, why)
                del found.routers[name]
            elif not router.names:
                self.fault(f"{where}.rule", "is missing; the router is left out")
                del found.routers[name]
            elif not service:
                self.fault(f"{where}.service", "must be named; the router is left out")
                del found.routers[name]
            else:
                found.routers[name] = replace(router, service=service)
        for name, service_ in tuple(found.services.items()):
            if not service_.port:
                self.fault(
                    f"{PREFIX}services.{name}.loadbalancer.server.port", "is missing; no task is reached"
                )
                del found.services[name]
        network = next(self._network(), "")
        found.services = {name: replace(one, network=network) for name, one in found.services.items()}
        return found

    def _network(self) -> Iterator[str]:
        for key in ("traefik.swarm.network", "traefik.docker.network"):
            for written, value in self.service.labels.items():
                if written.lower() == key:
                    yield value

    def leave_out(self, written: str, name: str, why: str) -> None:
        self.bad.add(name)
        self.fault(written, f"{why}; the router is left out")

    def fault(self, written: str, why: str) -> None:
        self.found.problems.append(Problem(self.service.name, written, why))


def _names_of(rule: str) -> tuple[str, ...] | None:
    names = []
    for clause in rule.split("||"):
        found = _CLAUSE.fullmatch(clause)
        name = found[1].lower().rstrip(".") if found else ""
        if name != ANY and not _NAME.fullmatch(name):
            return None
        names.append(name)
    return tuple(names)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
