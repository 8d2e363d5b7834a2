"""Which stack owns a host, or a path of it: the first to claim it, until it lets go. Pure.

Routers claim areas (`claims`). A claim is held or it waits. It waits as long as another stack holds an area
that contains it; of the claims that wait for the same area, the one that has waited longest is held next. A
held claim owns its area without the parts that others hold: they held them first, because a claim for a part
of an area that another stack holds has to wait. Claims of one stack's services for the same area are one
claim, so the area moves between services without a gap.

The areas of one host form a group. A group is decided on its own, and only when it has changed. Names of
services and middlewares belong to every stack that declares them; the one that has had a name longest comes
first.

If managers record who holds what (`Service.holds`), the record decides; otherwise the order of arrival does.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.http.config.matchers import PathKey
from mesh.http.config.regex import Expression
from mesh.http.hosts.assigned import NOBODY, AssignedHosts
from mesh.http.hosts.claims import Area, Breadth, Claims, Name, covers, name_key

HAND_OVER_SECONDS = 10.0  # a claim outlives its last service so long: `stack deploy` may move it
NARROWEST_FIRST = -1  # the factor that sorts longer paths first

_NOTHING_RECORDED: Mapping[str, float | None] = {}
Key = tuple[str, PathKey | None, bool]  # of a claim in a group: owner, path, whole


@dataclass(slots=True)
class _Claim:
    area: Area
    owner: str
    services: set[str] = field(default_factory=set)  # ids; empty during the hand-over to another service
    since: float | None = None  # seconds since the epoch; None: it waits
    queue_position: tuple[float, int, str, str] | None = None  # None: not computed yet
    created: str = ""  # when its first service was created, as Docker writes it
    recorded: bool = False  # a manager's record decides whether it is held
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A stack that holds something."""

    owner: str
    since: float  # seconds since the epoch
    assigned: bool = False  # by the configuration


@dataclass(frozen=True, slots=True)
class Right:
    """What a stack may serve of an area that it claims. `refused_by` is None if it holds the area; `without`
    are the paths in it that other stacks hold."""

    since: float = 0.0
    refused_by: Holder | None = None
    without: tuple[PathKey | None, ...] = ()


@dataclass(slots=True)
class _Group:
    claims: dict[Key, _Claim] = field(default_factory=dict)


class HostOwnership:
    """Call `claim` or `withdraw` for each service that has changed, then `settle` once.

    `assigned`: hosts that the configuration gives to stacks. `hand_over`: seconds for which a claim outlives
    its last service, while its stack has other services.
    """

    def __init__(self, assigned: AssignedHosts = NOBODY, hand_over: float = 0.0) -> None:
        self.assigned = assigned
        self._hand_over = hand_over
        self._groups: dict[str, _Group] = {}
        self._services: dict[str, tuple[str, Claims]] = {}  # service id → owner, claims
        self._members: dict[str, int] = {}  # owner → number of its services
        self._names: dict[Name, dict[str, tuple[float, set[str]]]] = {}  # → owner → since, services
        self._new_names: set[tuple[Name, str]] = set()
        self._leaving: dict[tuple[str, Key], float] = {}  # (group, claim) → when its last service left
        self._dirty: set[str] = set()
        self._remembered: dict[tuple[str, str], float] = {}  # (owner, key of an area or name) → since
        self._by_expression: set[str] = set()  # groups of hosts that fit an expression
        self.tls_version = 0  # changes whenever the owners of TLS passthrough may have
        self.refusals: Counter[str] = Counter()  # by owner: claims, each once until it is held or withdrawn

    def restart(self) -> None:
        """Forgets all claims. Whoever claims again what it has held still holds it."""
        self.remember(self.record())
        self._groups, self._services, self._members, self._names = {}, {}, {}, {}
        self._new_names, self._leaving, self._dirty, self._by_expression = set(), {}, set(), set()
        self.tls_version += 1

    def remember(self, record: Mapping[str, Mapping[str, float]]) -> None:
        """`record`: owner → what it has held, and since when. An owner still holds what it claims of that
        before the next `settle`."""
        self._remembered |= {
            (owner, key): since for owner, held in record.items() for key, since in held.items()
        }

    def record(self) -> dict[str, dict[str, float]]:
        """What each owner holds, for the `remember` of another instance."""
        found: dict[str, dict[str, float]] = {}
        for service, (owner, _) in self._services.items():
            found.setdefault(owner, {}).update(self.holds(service))
        return found

    def whole_record(self) -> dict[str, dict[str, float | None]]:
        """As `record`, with claims that wait (None) and those in hand-over."""
        found: dict[str, dict[str, float | None]] = {}
        for group in self._groups.values():
            for claim in group.claims.values():
                found.setdefault(claim.owner, {})[claim.area.key] = claim.since
        for name, owners in self._names.items():
            for owner, (since, _) in owners.items():
                found.setdefault(owner, {})[name_key(name)] = max(0.0, since)
        return found

    def adopt(self, record: Mapping[str, Mapping[str, float | None]]) -> None:
        """Takes over another manager's record of who holds what, where it knows the claim. Call `settle`
        then."""
        for place, group in self._groups.items():
            for claim in group.claims.values():
                recorded_claims = record.get(claim.owner, _NOTHING_RECORDED)
                if claim.area.key in recorded_claims and recorded_claims[claim.area.key] != claim.since:
                    claim.since = recorded_claims[claim.area.key]
                    self._dirty.add(place)
        for name, owners in self._names.items():
            for owner, (since, services) in owners.items():
                recorded_since = record.get(owner, _NOTHING_RECORDED).get(name_key(name))
                if recorded_since is not None and recorded_since != since:
                    owners[owner] = recorded_since, services

    # --- claims ---

    def claim(
        self,
        service: str,
        owner: str,
        claims: Claims,
        recorded: Mapping[str, float] | None = None,
        created: str = "",
    ) -> None:
        """Sets the claims of a service (its id). `recorded`: what it holds and since when, as a manager has
        recorded it. `created`: the service's time of creation, which orders claims that come together."""
        before_owner, before = self._services.get(service, (owner, Claims()))
        if before_owner != owner:
            self.withdraw(service)
            before = Claims()
        if service not in self._services:
            self._members[owner] = self._members.get(owner, 0) + 1
        self._services[service] = owner, claims
        for area in claims.areas:
            self._add_area(service, owner, area, recorded, created)
        for name in claims.names:
            self._add_name(service, owner, name, recorded)
        for area in before.areas - claims.areas:
            self._remove_area(service, owner, area)
        for name in before.names - claims.names:
            self._remove_name(service, owner, name)

    def withdraw(self, service: str) -> None:
        """The service (its id) has been removed."""
        owner, claims = self._services.pop(service, ("", Claims()))
        if not owner:
            return
        self._members[owner] -= 1
        for area in claims.areas:
            self._remove_area(service, owner, area)
        for name in claims.names:
            self._remove_name(service, owner, name)
        if not self._members[owner]:
            del self._members[owner]
            for group, key in self._leaving:  # the stack is gone: nothing is handed over
                if key[0] == owner:
                    self._dirty.add(group)

    def _add_area(
        self, service: str, owner: str, area: Area, recorded: Mapping[str, float] | None, created: str
    ) -> None:
        group = self._groups.setdefault(area.group, _Group())
        key: Key = (owner, area.path, area.whole)
        claim = group.claims.get(key)
        if claim is None:
            had = self._remembered.pop((owner, area.key), None)
            claim = group.claims[key] = _Claim(area, owner, since=had, created=created)
            self._dirty.add(area.group)
        claim.services.add(service)
        self._leaving.pop((area.group, key), None)
        if recorded is None:
            claim.recorded = False
        elif not claim.recorded or claim.since != recorded.get(area.key):
            claim.recorded, claim.since = True, recorded.get(area.key)
            self._dirty.add(area.group)

    def _remove_area(self, service: str, owner: str, area: Area) -> None:
        key: Key = (owner, area.path, area.whole)
        claim = self._groups[area.group].claims[key]
        claim.services.discard(service)
        if not claim.services:
            self._leaving[area.group, key] = -1.0  # `settle` knows the time
            self._dirty.add(area.group)

    def _add_name(self, service: str, owner: str, name: Name, recorded: Mapping[str, float] | None) -> None:
        owners = self._names.setdefault(name, {})
        since, services = owners.get(owner, (-1.0, set()))
        if since < 0:
            since = self._remembered.pop((owner, name_key(name)), since)
            self._new_names.add((name, owner))
        if recorded is not None and (recorded_since := recorded.get(name_key(name))) is not None:
            since = recorded_since
        services.add(service)
        owners[owner] = since, services

    def _remove_name(self, service: str, owner: str, name: Name) -> None:
        owners = self._names[name]
        owners[owner][1].discard(service)
        if not owners[owner][1]:
            del owners[owner]
            self._new_names.discard((name, owner))
        if not owners:
            del self._names[name]

    # --- decisions ---

    def settle(self, now: float) -> set[str]:
        """Decides the groups that have changed, at this time (seconds since the epoch). Returns the groups in
        which a stack may serve something else than before."""
        for name, owner in self._new_names:
            since, services = self._names.get(name, {}).get(owner, (0.0, set()))
            if services and since < 0:
                self._names[name][owner] = now, services
        self._new_names.clear()
        self._remembered.clear()  # what is not claimed by now has been let go
        self._dirty |= {group for (group, _), at in self._leaving.items() if self._has_expired(at, now)}
        dirty, self._dirty = self._dirty, set()
        for group in dirty & self._groups.keys():
            self._settle(group, now)
        if "*" in self._groups and any(one.startswith("~") for one in dirty):
            dirty.add("*")  # the owner of TLS passthrough for all names depends on them
            self._settle("*", now)
        return dirty

    def settle_all(self, now: float) -> set[str]:
        """Decides all groups again."""
        self._dirty |= self._groups.keys()
        return self.settle(now)

    def _has_expired(self, left_at: float, now: float) -> bool:
        return left_at >= 0 and now - left_at >= self._hand_over

    def _settle(self, name: str, now: float) -> None:
        group = self._groups[name]
        released: list[_Claim] = []
        for key, claim in tuple(group.claims.items()):
            if claim.services:
                continue
            place = name, key
            if self._leaving.get(place, -1.0) < 0:
                self._leaving[place] = now
            is_kept = self._hand_over and claim.since is not None and claim.owner in self._members
            if not is_kept or self._has_expired(self._leaving[place], now):
                released.append(group.claims.pop(key))
                del self._leaving[place]
        self._inherit(group, released)
        self._enforce(name, group)
        for claim in sorted(group.claims.values(), key=lambda one: self._queue_position(one, now)):
            if claim.since is None and not claim.recorded and self._blocking(name, group, claim) is None:
                claim.since = now
        for claim in group.claims.values():
            if claim.since is not None:
                claim.queue_position, claim.refused = None, False
            elif not claim.refused:
                claim.refused = True
                self.refusals[claim.owner] += 1
            self.tls_version += claim.area.whole
        self.tls_version += any(one.area.whole for one in released)
        if any(one.area.fits for one in group.claims.values()):
            self._by_expression.add(name)
        else:
            self._by_expression.discard(name)
        if not group.claims:
            del self._groups[name]

    def _inherit(self, group: _Group, released: Iterable[_Claim]) -> None:
        """A stack that claims a part of what it has held holds the part, since the same time."""
        held = [one for one in (*released, *group.claims.values()) if one.since is not None]
        for claim in group.claims.values():
            if claim.since is None and not claim.recorded:
                own = [
                    one.since
                    for one in held
                    if one.owner == claim.owner
                    and one.since is not None
                    and covers(one.area.path, claim.area.path)
                    and one.area.whole >= claim.area.whole
                ]
                claim.since = min(own, default=None)

    def _enforce(self, name: str, group: _Group) -> None:
        """Nobody holds what the configuration gives to another stack. If two stacks hold an area, as managers
        may record for a moment, the one that has held it longer keeps it."""
        for claim in group.claims.values():
            if claim.since is not None and self._assigned_to_other(name, claim.owner, claim.area) is not None:
                claim.since = None
        held = sorted(
            (one for one in group.claims.values() if one.since is not None),
            key=lambda one: (one.since, one.owner),
        )
        for position, claim in enumerate(held):
            if self._assigned_stack(name, claim.area) == claim.owner:
                continue
            for other in held[:position]:
                if claim.recorded and other.recorded:
                    continue  # a manager has decided between them
                overlaps = other.area.whole or claim.area.whole or covers(other.area.path, claim.area.path)
                if other.since is not None and other.owner != claim.owner and overlaps:
                    claim.since = None
                    break

    def _queue_position(self, claim: _Claim, now: float) -> tuple[float, int, str, str]:
        """The sort key of a claim that waits. Of those that begin to wait together the one with the longest
        path comes first: then most are served."""
        if claim.queue_position is None:
            narrow = NARROWEST_FIRST * len(claim.area.path.text) if claim.area.path is not None else 0
            claim.queue_position = now, narrow, claim.created, claim.owner
        return claim.queue_position

    def _assigned_stack(self, group: str, area: Area) -> str | None:
        """The stack to which the configuration gives the area, if there is one."""
        if group.startswith(("~", "*")):
            return None
        for path, stack in self.assigned.parts(group):
            if covers(PathKey(path, False), area.path):
                return stack
        return self.assigned(group)

    def _assigned_to_other(self, group: str, owner: str, area: Area) -> Holder | None:
        """The other stack to which the configuration gives the area, if there is one."""
        stack = self._assigned_stack(group, area)
        if area.whole and stack in (None, owner):  # it cannot be shared with the owner of a part
            others = (one for _, one in self._parts(group) if one != owner)
            stack = next(others, stack)
        return Holder(stack, 0.0, True) if stack is not None and stack != owner else None

    def _parts(self, group: str) -> list[tuple[str, str]]:
        return [] if group.startswith(("~", "*")) else self.assigned.parts(group)

    def _blocking(self, name: str, group: _Group, claim: _Claim) -> Holder | None:
        """The stack because of which a claim has to wait."""
        if (holder := self._assigned_to_other(name, claim.owner, claim.area)) is not None:
            return holder
        if self._assigned_stack(name, claim.area) == claim.owner:
            return None  # whoever has held it so far
        for other in group.claims.values():
            overlaps = other.area.whole or claim.area.whole or covers(other.area.path, claim.area.path)
            if other.owner != claim.owner and other.since is not None and overlaps:
                return Holder(other.owner, other.since)
        if name == "*" and claim.area.whole:
            return self._other_expression_holder(claim.owner)
        return None

    def _other_expression_holder(self, owner: str) -> Holder | None:
        """Another stack that holds hosts by an expression: TLS passthrough for all names would take them."""
        for name in self._by_expression:
            for other in self._groups[name].claims.values():
                if other.owner != owner and other.since is not None and not other.area.whole:
                    return Holder(other.owner, other.since)
        return None

    # --- queries ---

    def right(self, owner: str, area: Area) -> Right:
        """What this owner may serve of an area that it claims."""
        group = self._groups.get(area.group, _Group())
        claim = group.claims.get((owner, area.path, area.whole))
        if claim is None or claim.since is None:
            probe = claim or _Claim(area, owner)
            blocking = self._blocking(area.group, group, probe)
            return Right(refused_by=blocking or Holder("", 0.0))
        inside = tuple(
            other.area.path
            for other in group.claims.values()
            if other.owner != owner and other.since is not None and covers(area.path, other.area.path)
        )
        given = tuple(
            PathKey(path, False)
            for path, stack in self._parts(area.group)
            if stack != owner and covers(area.path, PathKey(path, False))
        )
        inside += given
        return Right(claim.since, None, inside)

    def fits_anothers(self, host: str, owner: str, since: float) -> bool:
        """Another stack has held the host, by an expression, at least as long."""
        for place in self._by_expression:
            for claim in self._groups[place].claims.values():
                older = claim.since is not None and claim.since <= since
                if older and claim.owner != owner and all(one.found(host) for one in _expressions(claim)):
                    return True
        return False

    def sole_holder(self, host: str, owner: str) -> Holder | None:
        """Another stack that holds the host by name, if this owner holds no part of it."""
        if (holder := self._assigned_to_other(host, owner, Area(Breadth.ONE, host))) is not None:
            return holder
        held = [one for one in self._groups.get(host, _Group()).claims.values() if one.since is not None]
        if any(one.owner == owner for one in held):
            return None
        return next((Holder(one.owner, one.since) for one in held if one.since is not None), None)

    def is_anothers(self, host: str, owner: str) -> bool:
        """Another stack holds the host by name, or a part of it."""
        assigned = self.assigned(host)
        if assigned is not None:
            return assigned != owner
        group = self._groups.get(host)
        if group is None:
            return False
        return any(one.owner != owner and one.since is not None for one in group.claims.values())

    def since_of(self, name: Name, owner: str) -> float:
        """Since when this owner has declared a service or middleware of this name; 0 if unknown."""
        since, _ = self._names.get(name, {}).get(owner, (0.0, set()))
        return max(0.0, since)

    def holds(self, service: str) -> Mapping[str, float]:
        """What a service (its id) claims and its stack holds, and since when."""
        owner, claims = self._services.get(service, ("", Claims()))
        held: dict[str, float] = {}
        for area in claims.areas:
            claim = self._groups[area.group].claims[owner, area.path, area.whole]
            if claim.since is not None:
                held[area.key] = claim.since
        for name in claims.names:
            held[name_key(name)] = self.since_of(name, owner)
        return held

    def services_in(self, groups: Iterable[str]) -> set[str]:
        """The ids of the services that claim something in these groups."""
        found: set[str] = set()
        for name in groups:
            for claim in self._groups.get(name, _Group()).claims.values():
                found |= claim.services
        return found

    def refused(self) -> Iterator[tuple[str, Area, Holder]]:
        """(service id, the area that it claims, the holder because of which it waits)."""
        for name, group in self._groups.items():
            for claim in group.claims.values():
                if claim.since is None:
                    holder = self._blocking(name, group, claim) or Holder("", 0.0)
                    for service in claim.services:
                        yield service, claim.area, holder


def _expressions(claim: _Claim) -> tuple[Expression, ...]:
    return tuple(map(Expression, claim.area.fits))
