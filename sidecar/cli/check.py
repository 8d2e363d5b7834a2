"""`mesh check FILE`: is it good, and what is it? The kind is seen from its keys."""

from dataclasses import fields
from pathlib import Path

from mesh.catalog import codec
from mesh.catalog.codec import CatalogDocument, Catalogue
from mesh.catalog.documents import read_yaml
from sidecar import config
from sidecar.config import Config, DiscoveryKind

_CATALOGUE_KEYS = frozenset(CatalogDocument.model_fields)
_CONFIG_KEYS = frozenset(field.name for field in fields(Config))


def check(path: str) -> str:
    """A summary of the good file, in one line. Raises ConfigError with every problem."""
    text = config.read_file(path)
    keys = frozenset(read_yaml(text, path))
    if len(keys & _CATALOGUE_KEYS) > len(keys & _CONFIG_KEYS):
        return f"{path}: a good catalogue: {_contents(codec.parse_text(text, path))}"
    settings = config.build(text, path, {}, {}, "localhost")
    if settings.discovery.kind is DiscoveryKind.FILE and Path(settings.discovery.path).exists():
        catalogue = codec.parse_text(config.read_file(settings.discovery.path), settings.discovery.path)
        return f"{path}: a good configuration, with a good catalogue: {_contents(catalogue)}"
    return f"{path}: a good configuration"


def _contents(catalogue: Catalogue) -> str:
    tasks = sum(len(service.tasks) for service in catalogue.services.values())
    counts = {
        "networks": len(catalogue.networks),
        "services": len(catalogue.services),
        "tasks": tasks,
        "nodes": len(catalogue.nodes),
        "askers": len(catalogue.askers),
    }
    return ", ".join(f"{kind}: {count}" for kind, count in counts.items())
