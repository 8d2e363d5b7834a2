"""The shape of a catalogue's document: which keys there are, and what kind of value each has. Pure.

A pydantic schema, one class for each entity. Whether the entities make sense together is not asked here
(`document_rules`).
"""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mesh.catalog.documents import kind_of
from mesh.catalog.model import EndpointMode, Protocol, PublishMode, Role, TaskState


def _no_bool(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError(f"must be a whole number, not {kind_of(value)}")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _empty_means_defaults(value: object) -> object:
    return {} if value is None else value


def _label(value: object) -> object:
    """Labels are text to Docker; `true` and `80` are what people write."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


PortNumber: TypeAlias = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=65535)]
Labels: TypeAlias = dict[str, Annotated[str, BeforeValidator(_label)]]


class CatalogueModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReturnPathDocument(CatalogueModel):
    entry: str = ""
    mac: str = ""
    entries: list[str] = []
    tasks: list[str] = []


class NodeDocument(CatalogueModel):
    address: str = ""
    role: Role = Role.WORKER
    availability: str = "active"
    state: str = "ready"
    return_path: ReturnPathDocument | None = None


class NetworkDocument(CatalogueModel):
    subnet: Annotated[list[str], BeforeValidator(_listed)] = []
    scope: str = "swarm"
    driver: str = "overlay"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False


class MembershipDocument(CatalogueModel):
    vip: str | None = None
    aliases: list[str] = []


class PortDocument(CatalogueModel):
    published: PortNumber
    target: PortNumber
    protocol: Protocol = Protocol.TCP
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""


class TaskDocument(CatalogueModel):
    name: str
    node: str = ""
    state: TaskState = TaskState.RUNNING
    addresses: dict[str, str] = {}
    container: str = ""
    hostname: str = ""
    slot: Annotated[int, BeforeValidator(_no_bool), Field(ge=0)] = 0


class ServiceDocument(CatalogueModel):
    mode: EndpointMode = EndpointMode.VIP
    networks: dict[str, Annotated[MembershipDocument, BeforeValidator(_empty_means_defaults)]] = {}
    ports: list[PortDocument] = []
    labels: Labels = {}
    tasks: list[TaskDocument] = []


class AttachmentDocument(CatalogueModel):
    address: str
    aliases: list[str] = []
    address6: str = ""
    gateway: bool = False
    priority: int = 0
    links: dict[str, str] = {}


class ContainerDocument(CatalogueModel):
    namespace: str = ""
    networks: dict[str, AttachmentDocument] = {}
    hostname: str = ""
    service: str = ""
    task: str = ""
    labels: Labels = {}
    running: bool = True
    dns: list[str] = []
    ndots: bool = False


class AskerDocument(CatalogueModel):
    name: str
    source: str
    networks: list[str]
    stack: str = ""


class CatalogDocument(CatalogueModel):
    networks: dict[str, Annotated[NetworkDocument, BeforeValidator(_empty_means_defaults)]]
    services: dict[str, Annotated[ServiceDocument, BeforeValidator(_empty_means_defaults)]]
    nodes: dict[str, Annotated[NodeDocument, BeforeValidator(_empty_means_defaults)]] | None = None
    containers: dict[str, ContainerDocument] = {}
    askers: list[AskerDocument] = []
