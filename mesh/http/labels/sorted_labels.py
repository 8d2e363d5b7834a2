"""A Swarm service's labels for HTTP, sorted by what they are about: routers, services, middlewares. Pure.

Keys are compared without regard to case, as Traefik does. A label that is not known becomes a problem.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from mesh.catalog.model import Service
from mesh.labels.reader import LabelReader
from mesh.labels.values import parse_http_flag

T = TypeVar("T")
Label = tuple[str, str]  # the key as written, the value
Options = dict[str, Label]  # option, lower case → label

MESH_PREFIX = "mesh.http."
TRAEFIK_PREFIX = "traefik."
NAME_MAX = 128  # characters of a router's, service's, middleware's name


@dataclass(slots=True)
class SortedLabels:
    """The labels of one service. Names of routers, services and middlewares are lower case."""

    service: Service
    reader: LabelReader
    routers: dict[str, Options] = field(default_factory=dict)
    services: dict[str, Options] = field(default_factory=dict)
    middlewares: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)  # name → kind → options
    mesh: Options = field(default_factory=dict)  # `mesh.http.*`
    network: str = ""
    contradicted: set[str] = field(default_factory=set)  # labels that are there twice, and differ
    stray: dict[str, str] = field(default_factory=dict)  # router → label that must have been meant for it
    faulty: set[tuple[str, str]] = field(default_factory=set)  # kind and name of what cannot be made

    def fault(self, key: str, message: str) -> None:
        self.reader.fault(key, message)

    def parse(self, label: Label, parse: Callable[[str], T]) -> T | None:
        """The label's value. None: it cannot be read, which becomes a problem."""
        return self.reader.parse(*label, parse)

    def parse_flag(self, label: Label | None, default: bool) -> bool:
        """The default also where the label cannot be read, but a `traefik.enable` like that is false."""
        if label is None:
            return default
        value = self.parse(label, parse_http_flag)
        if value is None and label[0].strip().lower() == "traefik.enable":
            self.fault(label[0], "the service is not served")  # which is what this label is for
            return False
        return default if value is None else value

    def sort(self, key: str, label: Label) -> None:
        """Put the label where it belongs. `key`: in lower case."""
        written = label[0]
        if key.startswith(MESH_PREFIX):
            self.mesh[key.removeprefix(MESH_PREFIX)] = label
            return
        parts = key.split(".")
        if parts[1] == "udp":
            self.fault(written, "UDP routers are not supported; a published port carries it")
        elif parts[1] == "tcp":
            return  # read by `passthrough`
        elif parts[1] in ("swarm", "docker") and len(parts) == 3:
            self._sort_provider_label(parts, label)
        elif parts[1] == "http" and len(parts) >= 4 and len(parts[3]) <= NAME_MAX:
            self._sort_http_label(parts, label)
        elif parts[1] == "constraint-label":
            self.fault(written, "constraints are not followed: it is served all the same")
        elif parts[1] in ("frontend", "port", "backend", "protocol", "weight"):
            self.fault(written, "is Traefik v1's; ignored")
        else:
            self.fault(written, "unknown label; ignored")

    def _sort_provider_label(self, parts: list[str], label: Label) -> None:
        """`traefik.swarm.OPTION`."""
        written, value = label
        if parts[2] == "network":
            self.network = value
        elif parts[2] == "lbswarm":
            if self.parse_flag(label, False):
                self.fault(written, "tasks are balanced by the sidecar itself; ignored")
        else:
            self.fault(written, "unknown label; ignored")
            return
        if parts[1] == "docker":
            self.fault(written, f"is Traefik v2's spelling of traefik.swarm.{parts[2]}; it is followed")

    def _sort_http_label(self, parts: list[str], label: Label) -> None:
        """`traefik.http.KIND.NAME.OPTION`."""
        written, value = label
        kind, name, option = parts[2], parts[3], ".".join(parts[4:])
        if "@" in name:
            self.fault(written, "a name must not contain @; ignored")
            self.stray.setdefault(name.partition("@")[0], written)
        elif kind == "routers":
            self.routers.setdefault(name, {})[option] = label
        elif kind == "services" and len(parts) >= 5 and parts[4] == "loadbalancer":
            self.services.setdefault(name, {})[".".join(parts[5:])] = label
        elif kind == "middlewares" and len(parts) >= 5:
            options = self.middlewares.setdefault(name, {}).setdefault(parts[4], {})
            options[".".join(written.split(".")[5:])] = value
        elif kind == "services":
            self.fault(written, "only loadbalancer services can be declared by labels; ignored")
        else:
            self.fault(written, "unknown label; ignored")
            if kind not in ("middlewares", "serverstransports"):
                self.stray.setdefault(name, written)
