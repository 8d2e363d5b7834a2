"""`mesh check FILE`: names all faults of a configuration or a catalogue. The file's keys tell which it is."""

from dataclasses import fields
from pathlib import Path

from mesh.catalog import codec
from mesh.catalog.codec import Catalogue
from mesh.catalog.document_schema import CatalogDocument
from mesh.catalog.documents import read_yaml
from mesh.errors import ConfigError, Problem
from sidecar import config, config_layers
from sidecar.config import Config

_CATALOGUE_KEYS = frozenset(CatalogDocument.model_fields)
_CONFIG_KEYS = frozenset(field.name for field in fields(Config))


def check(path: str) -> str:
    """Returns a summary of a good file, in one line. Raises ConfigError with every problem."""
    text = config.read_file(path)
    keys = frozenset(read_yaml(text, path))
    if len(keys & _CATALOGUE_KEYS) > len(keys & _CONFIG_KEYS):
        return f"{path}: a good catalogue: {_contents(codec.parse_text(text, path))}"
    problems: list[Problem] = []
    named: Catalogue | None = None
    try:
        config.build(text, path, {}, {}, "localhost")
    except ConfigError as error:
        problems += error.problems
    try:
        named = _named_catalogue(text, path)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    if named is not None:
        return f"{path}: a good configuration, with a good catalogue: {_contents(named)}"
    return f"{path}: a good configuration"


def _named_catalogue(text: str, path: str) -> Catalogue | None:
    """The catalogue that the configuration names, also where something else in it is wrong; None if there is
    no such file yet. Raises ConfigError with every problem of the catalogue."""
    discovery = config_layers.from_document(text, path)[0].get("discovery")
    named = discovery.get("path") if isinstance(discovery, dict) else None
    if not isinstance(named, str) or not Path(named).exists():
        return None
    return codec.parse_text(config.read_file(named), named)


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
