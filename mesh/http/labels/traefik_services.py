"""HTTP services from `traefik.http.services.*`. Pure."""

from dataclasses import replace

from mesh.catalog.model import Protocol, PublishMode
from mesh.http.config.model import HttpService, StickyCookie
from mesh.http.config.owner import owner_of
from mesh.http.labels.service_options import (
    CHECK_HEADERS,
    TRAEFIK_COOKIE,
    TRAEFIK_PASSIVE,
    TRAEFIK_SERVICE,
    UNSUPPORTED_OF_SERVICES,
    changed_service,
    check_header,
)
from mesh.http.labels.sorted_labels import Label, Options, SortedLabels


def read_services(labels: SortedLabels) -> dict[str, HttpService]:
    """By name."""
    return {name: _read_service(labels, name, options) for name, options in labels.services.items()}


def default_service(labels: SortedLabels, name: str) -> HttpService:
    """The service without options: on the port inside the task that is published, if there is exactly one."""
    service = labels.service
    ports = {
        port.target
        for port in service.ports
        if port.protocol is Protocol.TCP and port.mode is PublishMode.INGRESS
    }
    port = ports.pop() if len(ports) == 1 else 0
    return HttpService(name, service.id, port, tls_name=service.name, scope=owner_of(service))


def leave_out_without_port(labels: SortedLabels, services: dict[str, HttpService]) -> None:
    """Remove the services whose port is not known."""
    for name, service in list(services.items()):
        if not service.port:
            where = "mesh.http.port" if name.startswith("mesh-") else f"traefik.http.services.{name}"
            labels.fault(where, "the port inside the task is not named (…loadbalancer.server.port); left out")
            del services[name]
            labels.faulty.add(("service", name))


def _read_service(labels: SortedLabels, name: str, options: Options) -> HttpService:
    service = replace(default_service(labels, name), network=labels.network)
    if any(option.startswith("passivehealthcheck.") for option in options):
        service = replace(service, **TRAEFIK_PASSIVE)
    sticky: Options = {}
    for option, label in options.items():
        if option == "sticky" or option.startswith("sticky.cookie"):
            sticky[option.removeprefix("sticky").removeprefix(".cookie").removeprefix(".")] = label
        else:
            service = _with_option(labels, service, option, label)
    if any(option.startswith("healthcheck.") for option in options):
        service = changed_service(service, {"check.path": service.check.path or "/"})
    if sticky:
        service = replace(service, sticky=_read_cookie(labels, sticky))
    return service


def _with_option(labels: SortedLabels, service: HttpService, option: str, label: Label) -> HttpService:
    written = label[0]
    parse = TRAEFIK_SERVICE.get(option)
    if parse is None and option.startswith(CHECK_HEADERS):
        parse = check_header(written.split(".", 7)[7], service)
    if parse is None:
        why = UNSUPPORTED_OF_SERVICES.get(option.split(".")[0], "unknown option")
        labels.fault(written, f"{why}; ignored")
        return service
    changes = labels.parse(label, parse)
    return service if changes is None else changed_service(service, changes)


def _read_cookie(labels: SortedLabels, options: Options) -> StickyCookie | None:
    """None: `sticky=false`."""
    cookie = StickyCookie()
    for option, label in options.items():
        if option == "":
            if not labels.parse_flag(label, True):
                return None
        elif option in TRAEFIK_COOKIE:
            changes = labels.parse(label, TRAEFIK_COOKIE[option])
            cookie = cookie if changes is None else replace(cookie, **changes)
        else:
            labels.fault(label[0], "unknown option; ignored")
    return cookie
