"""What a Swarm service's labels declare for HTTP: Traefik v3's and `mesh.http.*`. Pure.

`read_labels` is the one entry function: a service in, a value out, which may be kept as long as the service
is the same. Every label is read or named in a `Problem`; one that cannot be read does not affect the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.catalog.model import Service
from mesh.errors import Problem
from mesh.http.config.model import Declared
from mesh.http.config.owner import owner_of
from mesh.http.labels.mesh_routers import read_mesh_routers
from mesh.http.labels.sorted_labels import MESH_PREFIX, TRAEFIK_PREFIX, Label, SortedLabels
from mesh.http.labels.traefik_middlewares import read_middlewares
from mesh.http.labels.traefik_routers import read_routers
from mesh.http.labels.traefik_services import leave_out_without_port, read_services
from mesh.labels.reader import LabelReader

LABELS_MAX = 500  # of one service that are read


@dataclass(frozen=True, slots=True)
class ReadRouters:
    """What is declared, and what is wrong with it (`file` is the service's name, `key` the label)."""

    declared: Declared = field(default_factory=Declared)
    problems: tuple[Problem, ...] = ()


def read_labels(service: Service, exposed_by_default: bool = True) -> ReadRouters:
    """Nothing where no label is about HTTP, or where one says that the service is not to be served."""
    found = {key.strip().lower(): (key, value.strip()) for key, value in service.labels.items()}
    relevant = {key: label for key, label in found.items() if _is_relevant(key)}
    if not relevant or not service.enabled:
        return ReadRouters()
    labels = SortedLabels(service, LabelReader(service.name, service.labels))
    _find_contradictions(labels, relevant)
    enabled = labels.parse_flag(found.get("traefik.enable"), exposed_by_default)
    if not enabled:
        relevant = {key: label for key, label in relevant.items() if key.startswith(MESH_PREFIX)}
    if len(relevant) > LABELS_MAX:
        # What is not read may be what keeps others out.
        labels.fault(min(relevant), f"more than {LABELS_MAX} labels; the service is not served")
        return ReadRouters(Declared(), tuple(labels.reader.problems))
    for key, label in sorted(relevant.items()):
        labels.sort(key, label)
    declared = _read(labels)
    # What several routers share becomes one problem.
    return ReadRouters(declared, tuple(dict.fromkeys(labels.reader.problems)))


def _is_relevant(key: str) -> bool:
    return key.startswith(MESH_PREFIX) or (key.startswith(TRAEFIK_PREFIX) and key != "traefik.enable")


def _find_contradictions(labels: SortedLabels, relevant: Mapping[str, Label]) -> None:
    """Keys that differ in case only are the same label: the last one counts."""
    for key, value in labels.service.labels.items():
        counts = relevant.get(key.strip().lower())
        if counts is not None and counts[0] != key:
            labels.fault(key, f"is the same label as {counts[0]}; ignored")
            if counts[1] != value.strip():
                labels.contradicted.add(counts[0])


def _read(labels: SortedLabels) -> Declared:
    middlewares = read_middlewares(labels)
    services = read_services(labels)
    routers = read_routers(labels, services)
    routers |= read_mesh_routers(labels, services)
    leave_out_without_port(labels, services)
    return Declared(routers, services, middlewares, frozenset(labels.faulty), owner_of(labels.service))
