"""The layers of the configuration: what each says, under which name, and how they lie over each other.

Defaults, `mesh.yml`, MESH_* variables, flags: each is a set of settings, a value at a place with the name of
whoever said it, so that a fault can be blamed on the file and key, the variable or the flag. Pure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.catalog.documents import Location, read_yaml, suggestion
from mesh.errors import ConfigError, Problem
from sidecar.encoded_characters import by_entry_point


@dataclass(frozen=True, slots=True)
class ConfigSetting:
    location: tuple[str, ...]
    value: object
    blame: tuple[str, str]  # file and key of the problem, should there be one


def _csv(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _same(text: str) -> str:
    return text


VARIABLES: Mapping[str, tuple[tuple[str, ...], Callable[[str], object]]] = {
    "MESH_NODE": (("node",), _same),
    "MESH_DISCOVERY_KIND": (("discovery", "kind"), _same),
    "MESH_DISCOVERY_PATH": (("discovery", "path"), _same),
    "MESH_DNS_LISTEN": (("dns", "listen"), _csv),
    "MESH_DNS_UPSTREAMS": (("dns", "upstreams"), _csv),
    "MESH_DNS_UPSTREAM_ORDER": (("dns", "upstream_order"), _same),
    "MESH_DNS_MIXED_CASE": (("dns", "mixed_case"), _same),
    "MESH_DNS_RESOLV_CONF": (("dns", "resolv_conf"), _same),
    "MESH_DNS_TTL": (("dns", "ttl"), _same),
    "MESH_DNS_CACHE": (("dns", "cache"), _same),
    "MESH_DNS_QUERY_LOG": (("dns", "query_log"), _same),
    "MESH_DNS_WORKERS": (("dns", "workers"), _same),
    "MESH_DNS_SHARED_ALIAS": (("dns", "shared_alias"), _same),
    "MESH_DNS_EMPTY_SERVICES": (("dns", "empty_services"), _same),
    "MESH_DNS_OTHER_TYPES": (("dns", "other_types"), _same),
    "MESH_DNS_VIP_PTR": (("dns", "vip_ptr"), _same),
    "MESH_DNS_SRV": (("dns", "srv"), _same),
    "MESH_DNS_ORDER": (("dns", "order"), _same),
    "MESH_CAPTURE": (("capture",), _same),
    "MESH_INGRESS_LISTEN": (("ingress", "listen"), _same),
    "MESH_INGRESS_MODE": (("ingress", "mode"), _same),
    "MESH_INGRESS_IPV6": (("ingress", "ipv6"), _same),
    "MESH_INGRESS_WORKERS": (("ingress", "workers"), _same),
    "MESH_HTTP_ENTRYPOINTS": (("http", "entrypoints"), _csv),
    "MESH_HTTP_ENCODED_CHARACTERS": (("http", "encoded_characters"), by_entry_point),
    "MESH_HTTP_EXPOSED_BY_DEFAULT": (("http", "exposed_by_default"), _same),
    "MESH_HTTP_CERTIFICATES": (("http", "certificates"), _same),
    "MESH_HTTP_CONNECTIONS_PER_ADDRESS": (("http", "connections_per_address"), _same),
    "MESH_HTTP_HOSTS": (("http", "hosts"), _csv),
    "MESH_HTTP_ALLOW_INTERNAL_TARGETS": (("http", "allow_internal_targets"), _csv),
    "MESH_HTTP_ACME_DIRECTORY": (("http", "acme", "directory"), _same),
    "MESH_HTTP_ACME_EMAIL": (("http", "acme", "email"), _same),
    "MESH_HTTP_ACME_CA": (("http", "acme", "ca"), _same),
    "MESH_HTTP_TUNNEL": (("http", "tunnel"), _same),
    "MESH_HTTP_WORKERS": (("http", "workers"), _same),
    "MESH_HTTP_TRUSTED": (("http", "trusted"), _csv),
    "MESH_HTTP_ACCESS_LOG": (("http", "access_log"), _same),
    "MESH_HTTP_ACCESS_LOG_SAMPLE": (("http", "access_log_sample"), _same),
    "MESH_METRICS_LISTEN": (("metrics", "listen"), _same),
    "MESH_ADMIN_LISTEN": (("admin", "listen"), _same),
    "MESH_ADMIN_SOCKET": (("admin", "socket"), _same),
    "MESH_FEED_LISTEN": (("feed", "listen"), _same),
    "MESH_STATE_DIR": (("state_dir",), _same),
    "MESH_DOCKER_SOCKET": (("docker", "socket"), _same),
    "MESH_DOCKER_NETNS": (("docker", "netns"), _same),
    "MESH_DOCKER_CERTIFICATES": (("docker", "certificates"), _same),
    "MESH_DOCKER_SERVICE": (("docker", "service"), _same),
    "MESH_EDGE_UID": (("edge", "uid"), _same),
    "MESH_EDGE_GID": (("edge", "gid"), _same),
    "MESH_EDGE_MEMORY": (("edge", "memory"), _same),
    "MESH_LOG_LEVEL": (("log", "level"), _same),
    "MESH_LOG_FORMAT": (("log", "format"), _same),
}
# Read elsewhere; the last two by the stack file.
_NOT_SETTINGS = {"MESH_CONFIG", "MESH_CATALOG", "MESH_IMAGE", "MESH_RESOLV_CONF"}
_NOT_OURS = "MESH_LAB"  # and whatever follows: the lab's


def from_document(text: str, file: str) -> tuple[dict[str, Any], list[Problem]]:
    """The file's layer, or its problems: the other layers are still looked at."""
    try:
        document = read_yaml(text, file)
    except ConfigError as error:
        return {}, list(error.problems)
    discovery = document.get("discovery")
    if isinstance(discovery, dict) and isinstance(path := discovery.get("path"), str):
        document["discovery"] = discovery | {"path": str(Path(file).parent / path)}  # as in compose files
    return document, []


def from_environment(environment: Mapping[str, str]) -> tuple[list[Problem], list[ConfigSetting]]:
    """An empty variable is an unset one: stack files pass `${MESH_X:-}`."""
    problems, settings = [], []
    for name, value in sorted(environment.items()):
        if not name.startswith("MESH_") or not value or name in _NOT_SETTINGS or name.startswith(_NOT_OURS):
            continue
        if name not in VARIABLES:
            problems.append(Problem("environment", name, f"unknown variable{suggestion(name, VARIABLES)}"))
            continue
        location, convert = VARIABLES[name]
        settings.append(ConfigSetting(location, convert(value), ("environment", name)))
    settings.extend(_catalog(environment.get("MESH_CATALOG", ""), ("environment", "MESH_CATALOG")))
    return problems, settings


def from_flags(flags: Mapping[str, str | None]) -> Iterator[ConfigSetting]:
    for name, value in flags.items():
        if value is None:
            continue
        blame = ("command line", f"--{name}")
        if name == "catalog":
            yield from _catalog(value, blame)
        elif name == "dns":
            yield ConfigSetting(("dns", "listen"), _csv(value), blame)
        else:
            yield ConfigSetting((name, "listen"), value, blame)


def _catalog(path: str, blame: tuple[str, str]) -> Iterator[ConfigSetting]:
    """Naming a catalogue is choosing the file source."""
    if path:
        yield ConfigSetting(("discovery", "kind"), "file", blame)
        yield ConfigSetting(("discovery", "path"), path, blame)


def lay_over(
    document: Mapping[str, Any], settings: list[ConfigSetting]
) -> tuple[dict[str, Any], dict[tuple[str, ...], tuple[str, str]]]:
    """The document with the settings in their places, and whom to blame for each place."""
    # a key without a value is a key left out
    result = {
        key: _given(value) if isinstance(value, dict) else value for key, value in _given(document).items()
    }
    blames: dict[tuple[str, ...], tuple[str, str]] = {}
    for setting in settings:
        *parents, last = setting.location
        place: dict[str, Any] = result
        for parent in parents:
            inner = place.get(parent)
            if inner is None:
                inner = place[parent] = {}
            if not isinstance(inner, dict):  # the file has nonsense there: let the check say so
                break
            place = inner
        else:
            place[last] = setting.value
            blames[setting.location] = setting.blame
    return result, blames


def _given(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def blame_of(location: Location, blames: Mapping[tuple[str, ...], tuple[str, str]]) -> tuple[str, str] | None:
    for end in range(len(location), 0, -1):
        prefix = tuple(map(str, location[:end]))
        if prefix in blames:
            return blames[prefix]
    return None
