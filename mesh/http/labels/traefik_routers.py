"""Routers from `traefik.http.routers.*`. Pure."""

import re
from dataclasses import replace

from mesh.http.config.model import HttpService, Router
from mesh.http.config.rule_parser import RuleError, read_rule
from mesh.http.labels.router_options import DOMAIN_OPTION, GUARDS, HOST_NAME, TLS_OPTIONS, TRAEFIK_ROUTER
from mesh.http.labels.sorted_labels import Label, Options, SortedLabels
from mesh.http.labels.traefik_services import default_service
from mesh.labels.values import split_names
from mesh.parsing import parse_int


def read_routers(labels: SortedLabels, services: dict[str, HttpService]) -> dict[str, Router]:
    """By name. A service that is made for a router is added to `services`."""
    routers = dict(labels.routers)
    if not routers and services:
        # Traefik makes one, named and addressed as the service is.
        routers = {normalized(labels.service.name): {}}
    found: dict[str, Router] = {}
    for name, options in routers.items():
        router = _read_router(labels, name, options, services)
        if router is not None:
            found[name] = router
    return found


def closed(labels: SortedLabels, router: Router, key: str, why: str) -> Router:
    """The router, which lets nobody through: it would be less guarded than was asked for."""
    labels.fault(key, f"{why}; the router is not served")
    return replace(router, fault=router.fault or f"{key} {why}")


def normalized(name: str) -> str:
    """As Traefik's `normalize`: what is neither letter nor digit becomes a hyphen."""
    return re.sub(r"[^0-9A-Za-z]+", "-", name).strip("-").lower()


def _read_router(
    labels: SortedLabels, name: str, options: Options, services: dict[str, HttpService]
) -> Router | None:
    written, rule = options.get("rule", ("", f"Host(`{normalized(labels.service.name)}`)"))
    try:
        match = read_rule(rule)
    except RuleError as error:
        labels.fault(written, f"{error}; the router is left out")
        return None
    router = Router(name, labels.service.id, rule, match, priority=len(rule))
    if name in labels.stray:
        router = closed(labels, router, labels.stray[name], "is no label of a router")
    domains: dict[int, list[str]] = {}  # by their number in the label
    for option, label in options.items():
        if label[0] in labels.contradicted:
            router = closed(labels, router, label[0], "is there twice, and differs")
        if (found := DOMAIN_OPTION.fullmatch(option)) is not None:
            router = replace(router, tls=True)
            domains.setdefault(parse_int(found[1], 0, 999), []).extend(_read_domain(labels, label))
        elif option != "rule":
            router = _with_option(labels, router, option, label)
    if domains:
        groups = (tuple(sorted(set(names))) for _, names in sorted(domains.items()))
        router = replace(router, domains=tuple(names for names in groups if names))
    return router if router.service else _with_service(labels, router, services)


def _with_option(labels: SortedLabels, router: Router, option: str, label: Label) -> Router:
    key, value = label
    if option in TRAEFIK_ROUTER:
        changes = labels.parse(label, TRAEFIK_ROUTER[option])
        if changes is None and option == "tls":
            changes = {"tls": True}  # whatever was meant, it is not to be served without
            labels.fault(key, "the router is taken for one with TLS")
        elif changes is None and option in GUARDS:
            return closed(labels, router, key, "cannot be read")
        return router if changes is None else replace(router, **changes)
    if option == "tls.certresolver":
        return replace(router, tls=True, issued=bool(value))
    if option == "tls.options":
        router = replace(router, tls=True)
        if value.lower() in TLS_OPTIONS:
            return router
        return closed(labels, router, key, "TLS options are not supported; they may keep others out")
    if option.split(".")[0] == "observability" or (option, value.lower()) == ("rulesyntax", "v3"):
        labels.fault(key, "is not followed; the router is served")
        return router
    return closed(labels, router, key, "unknown option, which may be what keeps others out")


def _read_domain(labels: SortedLabels, label: Label) -> list[str]:
    """The names in `main` or `sans`."""
    names = [one.rstrip(".") for one in split_names(label[1])]
    good = [one for one in names if HOST_NAME.fullmatch(one)]
    for one in names:
        if one not in good:
            labels.fault(label[0], f"{one[:80]!r} is no name of a host; ignored")
    return good


def _with_service(labels: SortedLabels, router: Router, services: dict[str, HttpService]) -> Router:
    """A router that names no service gets the only one, or one that is made for it."""
    if len(services) > 1:
        where = f"traefik.http.routers.{router.name}.service"
        labels.fault(where, f"must be named, for there are several: {', '.join(sorted(services))}")
        return router
    if not services:
        name = normalized(labels.service.name)
        services[name] = replace(default_service(labels, name), network=labels.network)
    return replace(router, service=next(iter(services)))
