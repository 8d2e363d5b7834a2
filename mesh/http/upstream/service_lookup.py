"""Services that a middleware calls by an address, as an application would: `http://auth:9091/verify`.

Meant is a service of the stack whose label it is, or of the router's, if one has this name or alias: no other
stack takes its place by calling a service so. Else a service's own name is the Swarm's. An alias may be
several services': then the one is meant that shares a network, where it has this alias, with the service
whose router it is. Where that leaves several it is nobody.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Snapshot
from mesh.dns.names import TASKS, service_names
from mesh.errors import Problem
from mesh.http import limits
from mesh.http.config.model import HttpService
from mesh.http.config.owner import owner_of
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.network_reach import NetworkReach
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.service_registry import Targets


class ServiceUse(NamedTuple):
    owner: str  # service id, of the router
    host: str  # lower case
    port: int
    scope: str = ""  # the stack whose label it is


class ServiceLookup:
    """`use` for each router that names one; `update` as the catalogue changes."""

    def __init__(self, core: HttpRuntime, reach: NetworkReach, as_published: Callable[[], bool]) -> None:
        self._targets = Targets(core, reach, as_published)
        self._uses: Counter[ServiceUse] = Counter()
        self._found: dict[ServiceUse, str] = {}  # → service id
        self._of: dict[str, set[ServiceUse]] = {}  # service id → uses that found it
        self._why: dict[ServiceUse, str] = {}  # it cannot be asked

    def use(self, use: ServiceUse, snapshot: Snapshot) -> None:
        self._uses[use] += 1
        if self._uses[use] == 1:
            self._find(use, snapshot)

    def drop(self, use: ServiceUse) -> None:
        self._uses[use] -= 1
        if not self._uses[use]:
            del self._uses[use]
            self._lose(use)

    def forget(self) -> None:
        """Nobody names anything."""
        for use in tuple(self._found):
            self._lose(use)
        self._uses.clear()
        self._why.clear()

    def target(self, use: ServiceUse) -> RoutedTarget | None:
        found = self._found.get(use)
        return self._targets.get(_name(found, use.port)) if found is not None else None

    def concerns(self, id_: str) -> bool:
        return id_ in self._of

    def update(self, old: Snapshot, new: Snapshot, services: Collection[str]) -> None:
        """These have changed, or can be reached otherwise."""
        again: set[ServiceUse] = set()
        for id_ in services if self._uses else ():
            before, after = old.services.get(id_), new.services.get(id_)
            if _networks(before) != _networks(after) or _names(before) != _names(after):
                names = _names(before) | _names(after)
                again |= {use for use in self._uses if _plain(use.host) in names or use.owner == id_}
            elif after is not None:
                for use in self._of.get(id_, ()):
                    self._set_endpoints(use, after, new)
        for use in again:
            self._lose(use)
            self._find(use, new)

    def problems(self, snapshot: Snapshot) -> Iterator[Problem]:
        for use, why in self._why.items():
            if use not in self._found and ("." in use.host or ":" in use.host):
                continue  # it is not meant to be a service's
            owner = snapshot.services.get(use.owner)
            yield Problem(owner.name if owner else use.owner, f"{use.host}:{use.port}", why)

    def close(self) -> None:
        self._targets.close()

    def _find(self, use: ServiceUse, snapshot: Snapshot) -> None:
        service, why = _meant(use, snapshot)
        if service is None:
            self._why[use] = why
            return
        self._found[use] = service.id
        self._of.setdefault(service.id, set()).add(use)
        self._set_endpoints(use, service, snapshot)

    def _set_endpoints(self, use: ServiceUse, service: Service, snapshot: Snapshot) -> None:
        http = HttpService(
            _name(service.id, use.port), service.id, use.port, response_timeout=limits.ASIDE_SECONDS
        )
        why = self._targets.set_endpoints(http, service, snapshot)
        self._why.pop(use, None)
        if why:
            self._why[use] = f"cannot be reached: {why}"

    def _lose(self, use: ServiceUse) -> None:
        self._why.pop(use, None)
        id_ = self._found.pop(use, None)
        if id_ is None:
            return
        left = self._of[id_]
        left.discard(use)
        if not any(one.port == use.port for one in left):
            self._targets.drop(_name(id_, use.port))
        if not left:
            del self._of[id_]


def _name(service: str, port: int) -> str:
    return f"{service}:{port}"


def _plain(host: str) -> str:
    return host.removeprefix(TASKS)


def _names(service: Service | None) -> set[str]:
    if service is None:
        return set()
    return {service.name.lower()}.union(*(service_names(service, one) for one in service.networks))


def _networks(service: Service | None) -> set[str]:
    return {one.network for one in service.networks} if service else set()


def _of_stack(having: list[Service], stack: str, host: str) -> list[Service]:
    """Those of the stack; by its name before others by an alias."""
    of = [one for one in having if owner_of(one) == stack]
    return [one for one in of if one.name.lower() == host] or of


def _meant(use: ServiceUse, snapshot: Snapshot) -> tuple[Service | None, str]:
    host = _plain(use.host)
    having = [one for one in snapshot.services.values() if host in _names(one)]
    own = [one for one in having if one.name.lower() == host]
    near = _networks(snapshot.services.get(use.owner))
    beside = [
        one
        for one in having
        if any(at.network in near and host in service_names(one, at) for at in one.networks)
    ]
    router = snapshot.services.get(use.owner)
    stacks = [use.scope, owner_of(router) if router is not None else ""]
    ours = next((of for stack in stacks if stack and (of := _of_stack(having, stack, host))), [])
    found = ours or own or beside or having
    if len(found) == 1:
        return found[0], ""
    if not found:
        return None, "no service of the Swarm has this name"
    return None, f"several services have this name: {', '.join(sorted(one.name for one in found))}"
