"""What a Swarm service's labels declare: routers, services, middlewares. Traefik v3's and our own. Pure.

Every label is read or named in a `Problem`; none is passed over in silence, and none takes the others down.
Names and options are told apart from case as Traefik does: not at all.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar

from mesh.balance.policies import Policy
from mesh.catalog.model import Protocol, PublishMode, Service
from mesh.errors import Problem
from mesh.http.config.matchers import Always, And, Matcher
from mesh.http.config.model import (
    BAD_STATUSES,
    NEVER_SET,
    Declared,
    HashBy,
    HttpService,
    Middleware,
    Router,
    Scheme,
    StickyCookie,
)
from mesh.http.config.owner import owner_of
from mesh.http.config.rule_parser import RuleError, read_rule
from mesh.http.middleware.options import LabelError
from mesh.http.middleware.table import NOT_FOLLOWED, parse_middleware
from mesh.labels.values import FIELD_NAME, FIELD_VALUE, parse_middleware_names
from mesh.parsing import parse_duration as duration
from mesh.parsing import parse_int

T = TypeVar("T")

OURS = "mesh.http."
TRAEFIK = "traefik."
NAME_MAX = 128  # characters of a router's, service's, middleware's name
LABELS_MAX = 500  # of one service that are read


@dataclass(frozen=True, slots=True)
class ReadRouters:
    """Declared, and what is wrong with it (`file` is the service's name, `key` the label)."""

    declared: Declared = field(default_factory=Declared)
    problems: tuple[Problem, ...] = ()


def read_labels(service: Service, exposed_by_default: bool = True) -> ReadRouters:
    """Nothing where no label is ours or Traefik's for HTTP, or where one says that it is not to be served."""
    found = {key.strip().lower(): (key, value.strip()) for key, value in service.labels.items()}
    relevant = {
        key: one
        for key, one in found.items()
        if key.startswith(OURS) or (key.startswith(TRAEFIK) and key != "traefik.enable")
    }
    if not relevant or not service.enabled:
        return ReadRouters()
    reader = _LabelReader(service, relevant)
    for key, value in service.labels.items():
        lower = key.strip().lower()
        if lower in relevant and relevant[lower][0] != key:
            reader.fault(key, f"is the same label as {relevant[lower][0]}; ignored")
            if relevant[lower][1] != value.strip():
                reader.contradicted.add(relevant[lower][0])
    enabled = reader.switch("traefik.enable", found.get("traefik.enable"), exposed_by_default)
    if not enabled and any(key.startswith(TRAEFIK) for key in relevant):
        relevant = {key: one for key, one in relevant.items() if key.startswith(OURS)}
        reader = _LabelReader(service, relevant, reader.problems, contradicted=reader.contradicted)
    return reader.read()


@dataclass(slots=True)
class _LabelReader:
    service: Service
    labels: Mapping[str, tuple[str, str]]  # lower-case key → key as written, value
    problems: list[Problem] = field(default_factory=list)
    routers: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    services: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    middlewares: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    ours: dict[str, tuple[str, str]] = field(default_factory=dict)
    network: str = ""
    contradicted: set[str] = field(default_factory=set)  # labels that are there twice, and differ
    stray: dict[str, str] = field(default_factory=dict)  # router → label that must have been meant for it
    faulty: set[tuple[str, str]] = field(default_factory=set)  # kind and name of what cannot be made

    def read(self) -> ReadRouters:
        if len(self.labels) > LABELS_MAX:
            # What is not read may be what keeps others out.
            self.fault(min(self.labels), f"more than {LABELS_MAX} labels; the service is not served")
            return ReadRouters(Declared(), tuple(self.problems))
        for key, (written, value) in sorted(self.labels.items()):
            self._sort(key, written, value)
        middlewares = self._middlewares()
        services = self._services()
        routers = self._routers(services)
        routers |= self._our_routers(services)
        self._without_port(services)
        # What several routers share is told once.
        problems = tuple(dict.fromkeys(self.problems))
        scope = owner_of(self.service)
        return ReadRouters(Declared(routers, services, middlewares, frozenset(self.faulty), scope), problems)

    def fault(self, key: str, message: str) -> None:
        self.problems.append(Problem(self.service.name, key, message))

    # --- which label is whose ---

    def _sort(self, key: str, written: str, value: str) -> None:
        if key.startswith(OURS):
            self.ours[key.removeprefix(OURS)] = written, value
            return
        parts = key.split(".")
        if parts[1] == "udp":
            self.fault(written, "UDP routers are not supported; a published port carries it")
        elif parts[1] == "tcp":
            return  # `tcp_labels`
        elif parts[1] in ("swarm", "docker") and len(parts) == 3:
            self._of_provider(parts, written, value)
        elif parts[1] == "http" and len(parts) >= 4 and len(parts[3]) <= NAME_MAX:
            self._of_http(parts, written, value)
        elif parts[1] == "constraint-label":
            self.fault(written, "constraints are not followed: it is served all the same")
        elif parts[1] in ("frontend", "port", "backend", "protocol", "weight"):
            self.fault(written, "is Traefik v1's; ignored")
        else:
            self.fault(written, "unknown label; ignored")

    def _of_provider(self, parts: list[str], written: str, value: str) -> None:
        if parts[2] == "network":
            self.network = value
        elif parts[2] == "lbswarm":
            if self.switch(written, (written, value), False):
                self.fault(written, "tasks are balanced by the sidecar itself; ignored")
        else:
            self.fault(written, "unknown label; ignored")
            return
        if parts[1] == "docker":
            self.fault(written, f"is Traefik v2's spelling of traefik.swarm.{parts[2]}; it is followed")

    def _of_http(self, parts: list[str], written: str, value: str) -> None:
        kind, name, option = parts[2], parts[3], ".".join(parts[4:])
        if "@" in name:
            self.fault(written, "a name must not contain @; ignored")
            self.stray.setdefault(name.partition("@")[0], written)
        elif kind == "routers":
            self.routers.setdefault(name, {})[option] = written, value
        elif kind == "services" and len(parts) >= 5 and parts[4] == "loadbalancer":
            self.services.setdefault(name, {})[".".join(parts[5:])] = written, value
        elif kind == "middlewares" and len(parts) >= 5:
            options = self.middlewares.setdefault(name, {}).setdefault(parts[4], {})
            options[".".join(written.split(".")[5:])] = value
        elif kind == "services":
            self.fault(written, "only loadbalancer services can be declared by labels; ignored")
        else:
            self.fault(written, "unknown label; ignored")
            if kind not in ("middlewares", "serverstransports"):
                self.stray.setdefault(name, written)

    # --- Traefik's ---

    def _middlewares(self) -> dict[str, Middleware]:
        made: dict[str, Middleware] = {}
        for name, kinds in self.middlewares.items():
            where = f"traefik.http.middlewares.{name}"
            if len(kinds) > 1:
                self.fault(where, f"is of several kinds: {', '.join(sorted(kinds))}; ignored")
                self.faulty.add(("middleware", name))
                continue
            ((kind, options),) = kinds.items()
            try:
                made[name], ignored = parse_middleware(kind, options)
            except LabelError as error:
                self.fault(f"{where}.{kind}{error.option}", f"{error}; the middleware is left out")
                self.faulty.add(("middleware", name))
                continue
            for option in ignored:
                self.fault(f"{where}.{kind}.{option}", "is not supported; ignored")
            if kind in NOT_FOLLOWED:
                self.fault(
                    f"{where}.{kind}", f"is not followed: {NOT_FOLLOWED[kind]}; routers are served without"
                )
        return made

    def _services(self) -> dict[str, HttpService]:
        return {name: self._service(name, options) for name, options in self.services.items()}

    def _service(self, name: str, options: dict[str, tuple[str, str]]) -> HttpService:
        service = replace(self._plain_service(name), network=self.network)
        if any(option.startswith("passivehealthcheck.") for option in options):
            service = replace(service, **_TRAEFIK_PASSIVE)
        sticky: dict[str, tuple[str, str]] = {}
        for option, (written, value) in options.items():
            if option == "sticky" or option.startswith("sticky.cookie"):
                sticky[option.removeprefix("sticky").removeprefix(".cookie").removeprefix(".")] = (
                    written,
                    value,
                )
            elif option in _SERVICE or option.startswith(_CHECK_HEADERS):
                read = _SERVICE.get(option) or _check_header(written.split(".", 7)[7], service)
                change = self.value(written, value, read)
                service = _changed(service, change) if change is not None else service
            else:
                why = _UNSUPPORTED_OF_SERVICES.get(option.split(".")[0], "unknown option")
                self.fault(written, f"{why}; ignored")
        if any(option.startswith("healthcheck.") for option in options):
            service = _changed(service, {"check.path": service.check.path or "/"})
        if sticky:
            service = replace(service, sticky=self._sticky(sticky))
        return service

    def _plain_service(self, name: str) -> HttpService:
        """With the port that is published, if there is just one."""
        ports = {
            port.target
            for port in self.service.ports
            if port.protocol is Protocol.TCP and port.mode is PublishMode.INGRESS
        }
        port = ports.pop() if len(ports) == 1 else 0
        scope = owner_of(self.service)
        return HttpService(name, self.service.id, port, tls_name=self.service.name, scope=scope)

    def _sticky(self, options: dict[str, tuple[str, str]]) -> StickyCookie | None:
        cookie = StickyCookie()
        for option, (written, value) in options.items():
            if option == "":
                if not self.switch(written, (written, value), True):
                    return None
            elif option in _COOKIE:
                change = self.value(written, value, _COOKIE[option])
                cookie = replace(cookie, **change) if change is not None else cookie
            else:
                self.fault(written, "unknown option; ignored")
        return cookie

    def _routers(self, services: dict[str, HttpService]) -> dict[str, Router]:
        routers = dict(self.routers)
        if not routers and services:
            # Traefik makes one, named and addressed as the service is.
            routers = {_normal(self.service.name): {}}
        made: dict[str, Router] = {}
        for name, options in routers.items():
            router = self._router(name, options, services)
            if router is not None:
                made[name] = router
        return made

    def _router(
        self, name: str, options: dict[str, tuple[str, str]], services: dict[str, HttpService]
    ) -> Router | None:
        written, rule = options.get("rule", ("", f"Host(`{_normal(self.service.name)}`)"))
        try:
            match = read_rule(rule)
        except RuleError as error:
            self.fault(written, f"{error}; the router is left out")
            return None
        router = Router(name, self.service.id, rule, match, priority=len(rule))
        if name in self.stray:
            router = self._closed(router, self.stray[name], "is no label of a router")
        domains: dict[int, list[str]] = {}  # by their number in the label
        for option, (key, value) in options.items():
            if key in self.contradicted:
                router = self._closed(router, key, "is there twice, and differs")
            if (found := _DOMAIN.fullmatch(option)) is not None:
                router = replace(router, tls=True)
                domains.setdefault(parse_int(found[1], 0, 999), []).extend(self._domain(key, value))
            elif option != "rule":
                router = self._with_option(router, option, key, value)
        if domains:
            groups = (tuple(sorted(set(names))) for _, names in sorted(domains.items()))
            router = replace(router, domains=tuple(names for names in groups if names))
        if not router.service:
            router = self._linked(router, services)
        return router

    def _with_option(self, router: Router, option: str, key: str, value: str) -> Router:
        if option in _ROUTER:
            change = self.value(key, value, _ROUTER[option])
            if change is None and option == "tls":
                change = {"tls": True}  # whatever was meant, it is not to be served without
                self.fault(key, "the router is taken for one with TLS")
            elif change is None and option in _GUARDS:
                return self._closed(router, key, "cannot be read")
            return replace(router, **change) if change is not None else router
        if option == "tls.certresolver":
            return replace(router, tls=True, issued=bool(value))
        if option == "tls.options":
            router = replace(router, tls=True)
            if value.lower() in _TLS_OPTIONS:
                return router
            return self._closed(router, key, "TLS options are not supported; they may keep others out")
        if option.split(".")[0] == "observability" or (option, value.lower()) == ("rulesyntax", "v3"):
            self.fault(key, "is not followed; the router is served")
            return router
        return self._closed(router, key, "unknown option, which may be what keeps others out")

    def _closed(self, router: Router, key: str, why: str) -> Router:
        """It would be less guarded than was asked for: nobody is let through by it."""
        self.fault(key, f"{why}; the router is not served")
        return replace(router, fault=router.fault or f"{key} {why}")

    def _domain(self, key: str, value: str) -> list[str]:
        """The names in `main` or `sans`."""
        names = [one.lower().rstrip(".") for one in _names(value)]
        good = [one for one in names if _HOST.fullmatch(one)]
        for one in names:
            if one not in good:
                self.fault(key, f"{one[:80]!r} is no name of a host; ignored")
        return good

    def _linked(self, router: Router, services: dict[str, HttpService]) -> Router:
        """The service of a router that names none: the only one, or one that is made for it."""
        where = f"traefik.http.routers.{router.name}.service"
        if len(services) > 1:
            self.fault(where, f"must be named, for there are several: {', '.join(sorted(services))}")
            return router
        if not services:
            name = _normal(self.service.name)
            plain = self._plain_service(name)
            services[name] = replace(plain, network=self.network)
        return replace(router, service=next(iter(services)))

    # --- ours ---

    def _our_routers(self, services: dict[str, HttpService]) -> dict[str, Router]:
        """`mesh.http.OPTION` is one router, `mesh.http.R.OPTION` are others. What R does not say of its
        service, entry points and middlewares is as without R."""
        plain: dict[str, tuple[str, str]] = {}
        named: dict[str, dict[str, tuple[str, str]]] = {}
        for option, given in self.ours.items():
            name, dot, rest = option.rpartition(".")
            if not dot:
                plain[option] = given
            elif name.startswith("services."):
                self._more_of_service(name.removeprefix("services."), rest, given, services)
            elif not re.fullmatch(r"[a-z0-9_-]{1,128}", name):
                self.fault(given[0], f"{name!r} is no name of a router; ignored")
            else:
                named.setdefault(name, {})[rest] = given
        made: dict[str, Router] = {}
        base = f"mesh-{_normal(self.service.name)}"
        if plain and (not named or not plain.keys().isdisjoint((*_CLAUSES, "canary_of"))):
            self._our_router(base, plain, services, made)
        inherited = {option: given for option, given in plain.items() if option not in _OF_ONE}
        for name, options in named.items():
            self._our_router(f"{base}.{name}", inherited | options, services, made)
        return made

    def _more_of_service(
        self, name: str, option: str, given: tuple[str, str], services: dict[str, HttpService]
    ) -> None:
        """`mesh.http.services.S.OPTION`: what Traefik has no label for, of a service it declares."""
        key, value = given
        if name not in services:
            known = ", ".join(sorted(services)) or "none"
            self.fault(key, f"Traefik's labels here declare no service {name!r} (but {known}); ignored")
        elif option not in _OUR_SERVICE:
            self.fault(key, f"unknown option, known are {', '.join(sorted(_OUR_SERVICE))}; ignored")
        elif (change := self.value(key, value, _OUR_SERVICE[option])) is not None:
            services[name] = _changed(services[name], change)

    def _our_router(
        self,
        name: str,
        options: dict[str, tuple[str, str]],
        services: dict[str, HttpService],
        made: dict[str, Router],
    ) -> None:
        service = self._plain_service(name)
        router = Router(name, self.service.id, "", Always(), service=name)
        clauses: list[tuple[str, Matcher]] = []
        broken = False
        for option, (key, value) in options.items():
            if option in _CLAUSES:
                try:
                    clauses.append(_CLAUSES[option](value))
                except ValueError as error:
                    self.fault(key, f"{error}; the router is left out")
                    broken = True
            elif option in _OUR_SERVICE:
                change = self.value(key, value, _OUR_SERVICE[option])
                service = _changed(service, change) if change is not None else service
            elif option in _OUR_ROUTER:
                change = self.value(key, value, _OUR_ROUTER[option])
                if change is None and option in ("tls", "acme"):
                    change = {"tls": True}
                    self.fault(key, "the router is taken for one with TLS")
                elif change is None and option in _GUARDS:
                    router = self._closed(router, key, "cannot be read")
                router = replace(router, **change) if change is not None else router
            else:
                known = ", ".join(sorted({*_CLAUSES, *_OUR_SERVICE, *_OUR_ROUTER}))
                router = self._closed(router, key, f"unknown option, known are {known}")
            if key in self.contradicted:
                router = self._closed(router, key, "is there twice, and differs")
        services[name] = service
        # Without one of its clauses a router would be for more than was meant; without any it is none: its
        # service may be a canary of another one's.
        if clauses and not broken:
            rule = " && ".join(text for text, _ in clauses)
            match = reduce(And, (match for _, match in clauses))
            made[name] = replace(router, rule=rule, match=match, priority=router.priority or len(rule))

    # --- helpers ---

    def _without_port(self, services: dict[str, HttpService]) -> None:
        for name, one in list(services.items()):
            if not one.port:
                where = "mesh.http.port" if name.startswith("mesh-") else f"traefik.http.services.{name}"
                self.fault(
                    where, "the port inside the task is not named (…loadbalancer.server.port); left out"
                )
                del services[name]
                self.faulty.add(("service", name))

    def switch(self, key: str, given: tuple[str, str] | None, default: bool) -> bool:
        if given is None:
            return default
        read = self.value(given[0], given[1], lambda text: {"on": _flag(text)})
        if read is None and given[0].strip().lower() == "traefik.enable":
            self.fault(given[0], "the service is not served")  # which is what this label is for
            return False
        return default if read is None else bool(read["on"])

    def value(self, key: str, text: str, read: Callable[[str], dict[str, T]]) -> dict[str, T] | None:
        try:
            return read(text)
        except ValueError as error:
            self.fault(key, f"{error}; ignored")
            return None


def _changed(service: HttpService, change: Mapping[str, Any]) -> HttpService:
    """With this read of a label; `check.NAME` is of how it is checked."""
    of_check = {key.removeprefix("check."): one for key, one in change.items() if key.startswith("check.")}
    if of_check:
        return replace(service, check=replace(service.check, **of_check))
    return replace(service, **change)


def _normal(name: str) -> str:
    """As Traefik's `normalize`: what is neither letter nor digit becomes a hyphen."""
    return re.sub(r"[^0-9A-Za-z]+", "-", name).strip("-").lower()


def _clause(rule: str) -> tuple[str, Matcher]:
    return f"({rule})", read_rule(rule)


def _any_of(matcher: str) -> Callable[[str], tuple[str, Matcher]]:
    return lambda text: _clause(" || ".join(f"{matcher}(`{one.strip()}`)" for one in text.split(",")))


def _our_cookie(text: str) -> StickyCookie:
    return StickyCookie(_cookie_name(text))


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in known:
        raise ValueError(f"{text!r} is neither true nor false")
    return known[text.lower()]


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        return parse_int(text, least, most)

    return read


def _cookie_name(text: str) -> str:
    if FIELD_NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no name of a cookie")
    return text


def _cookie_text(text: str) -> str:
    if re.fullmatch(r"[!-:<-~]{1,256}", text) is None:  # no space, no ";"
        raise ValueError(f"{text!r} cannot be in a cookie")
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip().lower()))


def _entry_names(text: str) -> tuple[str, ...]:
    """None would be all of them."""
    if not (names := _names(text)):
        raise ValueError("names no entry point (an unset variable?)")
    return names


def _stacks(text: str) -> tuple[str, ...]:
    """Names of stacks, `*` for all; case matters, as it does to Docker."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _one_of(known: Mapping[str, T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        if text.lower() not in known:
            raise ValueError(f"{text!r} is not one of {', '.join(known)}")
        return known[text.lower()]

    return read


def _to(name: str, read: Callable[[str], object]) -> Callable[[str], dict[str, Any]]:
    return lambda text: {name: read(text)}


_PORT = _number(1, 65535)
_PERCENT = _number(0, 100)
_STATUS = _number(200, 599)


_scheme = _one_of({one.value: one for one in Scheme})


_STATUSES = {"gateway": BAD_STATUSES, "5xx": frozenset(range(500, 600)), "none": frozenset[int]()}


def _statuses(text: str) -> frozenset[int]:
    """`gateway`, `5xx`, `none`, or statuses and ranges of them by commas: `500,502-504,429`."""
    if (known := _STATUSES.get(text.lower())) is not None:
        return known
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        bounds = [_STATUS(first), _STATUS(last if dash else first)]
        found.update(range(bounds[0], bounds[1] + 1))
    return frozenset(found)


def _hash_by(text: str) -> dict[str, Any]:
    """`client`, `header:NAME`, `cookie:NAME`. It is a policy, so it sets that."""
    kind, _, name = text.partition(":")
    if kind.lower() == "client" and not name:
        by = HashBy()
    elif kind.lower() == "header" and FIELD_NAME.fullmatch(name):
        by = HashBy(header=name.lower())
    elif kind.lower() == "cookie" and FIELD_NAME.fullmatch(name):
        by = HashBy(cookie=name)
    else:
        raise ValueError(f"{text[:80]!r} is not client, header:NAME or cookie:NAME")
    return {"hash_by": by, "policy": Policy.SOURCE_HASH}


# --- how endpoints are checked ---

CHECK_SECONDS_MIN = 0.1  # between two checks of one endpoint: more often would be load and not knowledge
_CHECK_HEADERS = "healthcheck.headers."
CHECK_HEADERS_MAX = 32


def _check_interval(text: str) -> float:
    seconds = duration(text)
    if seconds < CHECK_SECONDS_MIN:
        raise ValueError(f"{text!r} is less than 100ms")
    return seconds


def _check_path(text: str) -> str:
    if re.fullmatch(r"/[!-~]{0,1023}", text) is None or "#" in text:
        raise ValueError(f"{text[:80]!r} is no path")
    return text


def _our_acme(text: str) -> dict[str, Any]:
    """A router whose certificate is issued is one with TLS."""
    return {"issued": True, "tls": True} if _flag(text) else {"issued": False}


def _our_check(text: str) -> dict[str, Any]:
    """A path, `grpc` or `off`."""
    if text in ("grpc", "off"):
        return {"check.path": "", "check.grpc": text == "grpc"}
    return {"check.path": _check_path(text), "check.grpc": False}


def _check_mode(text: str) -> bool:
    return _one_of({"http": False, "grpc": True})(text)


def _check_host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", text) is None:
        raise ValueError(f"{text[:80]!r} is no name of a host")
    return text


def _check_header(name: str, service: HttpService) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        if (
            FIELD_NAME.fullmatch(name) is None
            or name.lower() in NEVER_SET
            or FIELD_VALUE.fullmatch(text) is None
        ):
            raise ValueError(f"{name[:80]!r} is no field that can be set so")
        if len(service.check.headers) == CHECK_HEADERS_MAX:
            raise ValueError(f"more than {CHECK_HEADERS_MAX} fields")
        return {"check.headers": (*service.check.headers, (name, text))}

    return read


_TRAEFIK_POLICIES = {
    "wrr": Policy.ROUND_ROBIN,
    "p2c": Policy.LEAST_CONN,
    "hrw": Policy.SOURCE_HASH,
    "leasttime": Policy.P2C,
}
_TRAEFIK_PASSIVE: dict[str, Any] = {"outlier_failures": 1, "outlier_statuses": _STATUSES["5xx"]}
_CHECK_METHODS = {method.lower(): method for method in ("GET", "HEAD", "OPTIONS", "POST")}
_POLICIES = {policy.value: policy for policy in Policy}

_SERVICE: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "server.port": _to("port", _PORT),
    "server.scheme": _to("scheme", _scheme),
    "passhostheader": _to("pass_host", _flag),
    "strategy": _to("policy", _one_of(_TRAEFIK_POLICIES)),
    "healthcheck.path": _to("check.path", _check_path),
    "healthcheck.port": _to("check.port", _PORT),
    "healthcheck.interval": _to("check.interval", _check_interval),
    "healthcheck.unhealthyinterval": _to("check.unwell_interval", _check_interval),
    "healthcheck.timeout": _to("check.timeout", duration),
    "healthcheck.scheme": _to("check.scheme", _scheme),
    "healthcheck.hostname": _to("check.host", _check_host),
    "healthcheck.method": _to("check.method", _one_of(_CHECK_METHODS)),
    "healthcheck.status": _to("check.statuses", _statuses),
    "healthcheck.followredirects": _to("check.follow", _flag),
    "healthcheck.mode": _to("check.grpc", _check_mode),
    "passivehealthcheck.maxfailedattempts": _to("outlier_failures", _number(1, 1000)),
    "passivehealthcheck.failurewindow": _to("outlier_time", duration),
}
_UNSUPPORTED_OF_SERVICES = {
    "server": "weight and url of servers are not supported: tasks are what Swarm runs",
    "responseforwarding": "responses are always passed on at once",
    "serverstransport": "transports are not supported",
}
_COOKIE: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "name": _to("name", _cookie_name),
    "secure": _to("secure", _flag),
    "httponly": _to("http_only", _flag),
    "samesite": _to("same_site", _one_of({"none": "None", "lax": "Lax", "strict": "Strict"})),
    "path": _to("path", _cookie_text),
    "domain": _to("domain", _cookie_text),
    "maxage": _to("max_age", _number(0, 10**9)),
}
_ROUTER: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "entrypoints": _to("entrypoints", _entry_names),
    "service": _to("service", str.lower),
    "middlewares": _to("middlewares", parse_middleware_names),
    "priority": _to("priority", _number(1, 2**31)),
    "tls": _to("tls", _flag),
}
_GUARDS = ("entrypoints", "middlewares")  # without them more people would come in
_TLS_OPTIONS = ("default", "default@file", "default@swarm", "default@docker")  # none in particular
_DOMAIN = re.compile(r"tls\.domains\[([0-9]{1,3})\]\.(?:main|sans)")
_HOST = re.compile(r"(?=.{1,253}$)(?:\*\.)?(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)")
_OUR_SERVICE: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "port": _to("port", _PORT),
    "scheme": _to("scheme", _scheme),
    "tls_verify": _to("tls_verify", _flag),
    "tls_name": _to("tls_name", str.lower),
    "tls_ca": _to("tls_ca", str),
    "network": _to("network", str),
    "policy": _to("policy", _one_of(_POLICIES)),
    "hash_by": _hash_by,
    "pass_host": _to("pass_host", _flag),
    "response_timeout": _to("response_timeout", duration),
    "try_timeout": _to("try_timeout", duration),
    "timeout": _to("timeout", duration),
    "attempts": _to("attempts", _number(1, 10)),
    "retry_budget": _to("retry_budget", _PERCENT),
    "retry_min": _to("retry_min", _number(0, 1000)),
    "max_requests": _to("max_requests", _number(0, 10**6)),
    "health": _our_check,
    "health_port": _to("check.port", _PORT),
    "health_interval": _to("check.interval", _check_interval),
    "health_timeout": _to("check.timeout", duration),
    "health_status": _to("check.statuses", _statuses),
    "health_host": _to("check.host", _check_host),
    "outlier_failures": _to("outlier_failures", _number(0, 1000)),
    "outlier_statuses": _to("outlier_statuses", _statuses),
    "outlier_time": _to("outlier_time", duration),
    "outlier_share": _to("outlier_share", _PERCENT),
    "mirror": _to("mirror", str.lower),
    "mirror_percent": _to("mirror_percent", _PERCENT),
    "canary_of": _to("canary_of", str.lower),
    "canary": _to("weight", _PERCENT),
    "canary_from": _to("canary_from", _stacks),
    "mirror_from": _to("mirror_from", _stacks),
    "sticky": _to("sticky", _our_cookie),
}
_CLAUSES: Mapping[str, Callable[[str], tuple[str, Matcher]]] = {  # what a request must be; all must hold
    "host": _any_of("Host"),
    "path": _any_of("PathPrefix"),
    "rule": _clause,
}
_OUR_ROUTER: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "entrypoints": _to("entrypoints", _entry_names),
    "middlewares": _to("middlewares", parse_middleware_names),
    "priority": _to("priority", _number(1, 2**31)),
    "tls": _to("tls", _flag),
    "acme": _our_acme,
}
_OF_ONE = (*_CLAUSES, "priority", "canary", "canary_of")  # what other routers of the service do not take over
