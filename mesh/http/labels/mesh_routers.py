"""Routers and services from `mesh.http.*`. Pure.

`mesh.http.OPTION` is one router with its service, `mesh.http.R.OPTION` are others. What R does not say of its
service, entry points and middlewares is as without R. `mesh.http.services.S.OPTION` adds to a service that
Traefik's labels declare.
"""

import re
from dataclasses import dataclass, field, replace
from functools import reduce

from mesh.http.config.matchers import Always, And, Matcher
from mesh.http.config.model import HttpService, Router
from mesh.http.labels.router_options import CLAUSES, GUARDS, MESH_ROUTER, OF_ONE_ROUTER
from mesh.http.labels.service_options import MESH_SERVICE, changed_service
from mesh.http.labels.sorted_labels import Label, Options, SortedLabels
from mesh.http.labels.traefik_routers import closed, normalized
from mesh.http.labels.traefik_services import default_service

_ROUTER_NAME = re.compile(r"[a-z0-9_-]{1,128}")


def read_mesh_routers(labels: SortedLabels, services: dict[str, HttpService]) -> dict[str, Router]:
    """By name. Their services are added to `services`."""
    plain: Options = {}
    named: dict[str, Options] = {}
    for option, label in labels.mesh.items():
        name, dot, rest = option.rpartition(".")
        if not dot:
            plain[option] = label
        elif name.startswith("services."):
            _add_to_service(labels, name.removeprefix("services."), rest, label, services)
        elif not _ROUTER_NAME.fullmatch(name):
            labels.fault(label[0], f"{name!r} is no name of a router; ignored")
        else:
            named.setdefault(name, {})[rest] = label
    base = f"mesh-{normalized(labels.service.name)}"
    routers = [(f"{base}.{name}", options) for name, options in named.items()]
    inherited = {option: label for option, label in plain.items() if option not in OF_ONE_ROUTER}
    routers = [(name, inherited | options) for name, options in routers]
    if plain and (not named or not plain.keys().isdisjoint((*CLAUSES, "canary_of"))):
        routers.insert(0, (base, plain))
    found: dict[str, Router] = {}
    for name, options in routers:
        reading = _read_router(labels, name, options)
        services[name] = reading.service
        if (router := reading.finished()) is not None:
            found[name] = router
    return found


def _add_to_service(
    labels: SortedLabels, name: str, option: str, label: Label, services: dict[str, HttpService]
) -> None:
    if name not in services:
        known = ", ".join(sorted(services)) or "none"
        labels.fault(label[0], f"Traefik's labels here declare no service {name!r} (but {known}); ignored")
    elif option not in MESH_SERVICE:
        labels.fault(label[0], f"unknown option, known are {', '.join(sorted(MESH_SERVICE))}; ignored")
    elif (changes := labels.parse(label, MESH_SERVICE[option])) is not None:
        services[name] = changed_service(services[name], changes)


@dataclass(slots=True)
class _MeshRouter:
    """A router as far as its labels are read."""

    router: Router
    service: HttpService
    clauses: list[tuple[str, Matcher]] = field(default_factory=list)  # text, matcher
    is_broken: bool = False  # one of its clauses cannot be read

    def finished(self) -> Router | None:
        """None: without one of its clauses a router would be for more than was meant. Without any there is
        no router; its service may be a canary of another one's."""
        if self.is_broken or not self.clauses:
            return None
        rule = " && ".join(text for text, _ in self.clauses)
        match = reduce(And, (match for _, match in self.clauses))
        return replace(self.router, rule=rule, match=match, priority=self.router.priority or len(rule))


def _read_router(labels: SortedLabels, name: str, options: Options) -> _MeshRouter:
    router = Router(name, labels.service.id, "", Always(), service=name)
    reading = _MeshRouter(router, default_service(labels, name))
    for option, label in options.items():
        if option in CLAUSES:
            clause = labels.reader.parse(*label, CLAUSES[option], "the router is left out")
            if clause is None:
                reading.is_broken = True
            else:
                reading.clauses.append(clause)
        elif option in MESH_SERVICE:
            changes = labels.parse(label, MESH_SERVICE[option])
            if changes is not None:
                reading.service = changed_service(reading.service, changes)
        else:
            reading.router = _with_option(labels, reading.router, option, label)
        if label[0] in labels.contradicted:
            reading.router = closed(labels, reading.router, label[0], "is there twice, and differs")
    return reading


def _with_option(labels: SortedLabels, router: Router, option: str, label: Label) -> Router:
    key = label[0]
    if option not in MESH_ROUTER:
        known = ", ".join(sorted({*CLAUSES, *MESH_SERVICE, *MESH_ROUTER}))
        return closed(labels, router, key, f"unknown option, known are {known}")
    changes = labels.parse(label, MESH_ROUTER[option])
    if changes is None and option in ("tls", "acme"):
        changes = {"tls": True}
        labels.fault(key, "the router is taken for one with TLS")
    elif changes is None and option in GUARDS:
        return closed(labels, router, key, "cannot be read")
    return router if changes is None else replace(router, **changes)
