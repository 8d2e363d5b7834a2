"""Whose a host is, or a path of it: who has it keeps it until it lets go. Pure.

A claim is held or it waits. A claim that waits is held as soon as no other stack holds an area around it, the
one that has waited longest first. A held claim has the area without what others hold inside it: they were
there before, for a claim inside an area that somebody else holds only ever waits. What one stack's services
claim together is one claim, so it moves between them without a gap.

Areas of one host are decided together and apart from all others (a group), and only where something has
changed. So are names of services and middlewares, of which the stack that has had one longest comes first.

Where managers record who has what (`Service.holds`), the record decides; without one, the order of arrival.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.http.config.matchers import PathKey
from mesh.http.config.regex import Expression
from mesh.http.hosts.assigned import NOBODY, AssignedHosts
from mesh.http.hosts.claims import Area, Breadth, Claims, Name, covers, name_key

HAND_OVER_SECONDS = 10.0  # that a stack may be without a claim while `stack deploy` moves it between services
NARROWEST_FIRST = -1

_NOTHING_SAID: Mapping[str, float | None] = {}
Key = tuple[str, PathKey | None, bool]  # of a claim in a group: owner, path, whole


@dataclass(slots=True)
class _Claim:
    area: Area
    owner: str
    services: set[str] = field(
        default_factory=set
    )  # ids; none: it is about to be taken over within its stack
    since: float | None = None  # that it is held; None: it waits
    waits: tuple[float, int, str, str] | None = None  # its place among those that wait; None: not asked yet
    created: str = ""  # when its first service was
    recorded: bool = False  # it is held, or not, because a manager says so
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    owner: str
    since: float  # seconds since the epoch
    assigned: bool = False  # by the configuration


@dataclass(frozen=True, slots=True)
class Right:
    """What a stack may serve of an area that it claims. `refused_by` is None where it holds the area;
    `without`: paths inside it that are others'."""

    since: float = 0.0
    refused_by: Holder | None = None
    without: tuple[PathKey | None, ...] = ()


@dataclass(slots=True)
class _Group:
    claims: dict[Key, _Claim] = field(default_factory=dict)


class HostOwnership:
    """`claim` and `withdraw` for each service that changes, then `settle` once.

    `assigned`: whose a host is by configuration. `hand_over`: how long a claim outlives its last service
    while others of its stack are there.
    """

    def __init__(self, assigned: AssignedHosts = NOBODY, hand_over: float = 0.0) -> None:
        self.assigned = assigned  # whose a host is by configuration, if it is anybody's
        self._hand_over = hand_over
        self._groups: dict[str, _Group] = {}
        self._of: dict[str, tuple[str, Claims]] = {}  # service id → owner, claims
        self._members: dict[str, int] = {}  # owner → services that claim something or are known to be there
        self._names: dict[Name, dict[str, tuple[float, set[str]]]] = {}  # → owner → since, services
        self._new_names: set[tuple[Name, str]] = set()
        self._leaving: dict[tuple[str, Key], float] = {}  # (group, claim) → when its last service let go
        self._dirty: set[str] = set()
        self._remembered: dict[tuple[str, str], float] = {}  # (owner, key of an area or name) → since
        self._by_expression: set[str] = set()  # groups of hosts that fit one, but those of TLS passed on
        self.tls_version = 0  # tells whether who has TLS that is passed on may have changed
        self.refusals: Counter[str] = Counter()  # by owner: claims, each once until it is held or withdrawn

    def restart(self) -> None:
        """Nobody claims anything; but who had what has had it when it is claimed again."""
        self.remember(self.record())
        self._groups, self._of, self._members, self._names = {}, {}, {}, {}
        self._new_names, self._leaving, self._dirty, self._by_expression = set(), {}, set(), set()
        self.tls_version += 1

    def remember(self, record: Mapping[str, Mapping[str, float]]) -> None:
        """Owner → what it has had, and since when: it still has what it claims before all is settled."""
        self._remembered |= {
            (owner, key): since for owner, held in record.items() for key, since in held.items()
        }

    def record(self) -> dict[str, dict[str, float]]:
        """For `remember`, of another one of these."""
        found: dict[str, dict[str, float]] = {}
        for service, (owner, _) in self._of.items():
            found.setdefault(owner, {}).update(self.holds(service))
        return found

    def whole_record(self) -> dict[str, dict[str, float | None]]:
        """The same with what waits (None), and with what is about to be taken over."""
        found: dict[str, dict[str, float | None]] = {}
        for group in self._groups.values():
            for claim in group.claims.values():
                found.setdefault(claim.owner, {})[claim.area.key] = claim.since
        for name, owners in self._names.items():
            for owner, (since, _) in owners.items():
                found.setdefault(owner, {})[name_key(name)] = max(0.0, since)
        return found

    def adopt(self, record: Mapping[str, Mapping[str, float | None]]) -> None:
        """Somebody who knows better says who has what, of all that is known there. `settle` after it."""
        for place, group in self._groups.items():
            for claim in group.claims.values():
                said = record.get(claim.owner, _NOTHING_SAID)
                if claim.area.key in said and said[claim.area.key] != claim.since:
                    claim.since = said[claim.area.key]
                    self._dirty.add(place)
        for name, owners in self._names.items():
            for owner, (since, services) in owners.items():
                said_since = record.get(owner, _NOTHING_SAID).get(name_key(name))
                if said_since is not None and said_since != since:
                    owners[owner] = said_since, services

    # --- what is claimed ---

    def claim(
        self,
        service: str,
        owner: str,
        claims: Claims,
        recorded: Mapping[str, float] | None = None,
        created: str = "",
    ) -> None:
        """All that this service (id) claims. `recorded`: what of it is held and since when, by a manager.
        `created`: when the service was, for the order of claims that come at the same moment."""
        before_owner, before = self._of.get(service, (owner, Claims()))
        if before_owner != owner:
            self.withdraw(service)
            before = Claims()
        if service not in self._of:
            self._members[owner] = self._members.get(owner, 0) + 1
        self._of[service] = owner, claims
        for area in claims.areas:
            self._add(service, owner, area, recorded, created)
        for name in claims.names:
            self._add_name(service, owner, name, recorded)
        for area in before.areas - claims.areas:
            self._take_away(service, owner, area)
        for name in before.names - claims.names:
            self._take_name_away(service, owner, name)

    def withdraw(self, service: str) -> None:
        """It is no more."""
        owner, claims = self._of.pop(service, ("", Claims()))
        if not owner:
            return
        self._members[owner] -= 1
        for area in claims.areas:
            self._take_away(service, owner, area)
        for name in claims.names:
            self._take_name_away(service, owner, name)
        if not self._members[owner]:
            del self._members[owner]
            for group, key in self._leaving:  # the stack is gone: it does not hand anything over
                if key[0] == owner:
                    self._dirty.add(group)

    def _add(
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

    def _take_away(self, service: str, owner: str, area: Area) -> None:
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
        if recorded is not None and (said := recorded.get(name_key(name))) is not None:
            since = said
        services.add(service)
        owners[owner] = since, services

    def _take_name_away(self, service: str, owner: str, name: Name) -> None:
        owners = self._names[name]
        owners[owner][1].discard(service)
        if not owners[owner][1]:
            del owners[owner]
            self._new_names.discard((name, owner))
        if not owners:
            del self._names[name]

    # --- who holds what ---

    def settle(self, now: float) -> set[str]:
        """Decide where something has changed. Returns the groups in which somebody may serve other than
        before."""
        for name, owner in self._new_names:
            since, services = self._names.get(name, {}).get(owner, (0.0, set()))
            if services and since < 0:
                self._names[name][owner] = now, services
        self._new_names.clear()
        self._remembered.clear()  # what is not claimed by now was let go
        self._dirty |= {group for (group, _), left in self._leaving.items() if self._is_over(left, now)}
        dirty, self._dirty = self._dirty, set()
        for group in dirty & self._groups.keys():
            self._settle(group, now)
        if "*" in self._groups and any(one.startswith("~") for one in dirty):
            dirty.add("*")  # who passes on all TLS that is left depends on those
            self._settle("*", now)
        return dirty

    def settle_all(self, now: float) -> set[str]:
        """Decide anew everywhere."""
        self._dirty |= self._groups.keys()
        return self.settle(now)

    def _is_over(self, left: float, now: float) -> bool:
        return left >= 0 and now - left >= self._hand_over

    def _settle(self, name: str, now: float) -> None:
        group = self._groups[name]
        released: list[_Claim] = []
        for key, claim in tuple(group.claims.items()):
            if claim.services:
                continue
            place = name, key
            if self._leaving.get(place, -1.0) < 0:
                self._leaving[place] = now
            held_on = self._hand_over and claim.since is not None and claim.owner in self._members
            if not held_on or self._is_over(self._leaving[place], now):
                released.append(group.claims.pop(key))
                del self._leaving[place]
        self._inherit(group, released)
        self._enforce(name, group)
        for claim in sorted(group.claims.values(), key=lambda one: self._place_in_line(one, now)):
            if claim.since is None and not claim.recorded and self._blocking(name, group, claim) is None:
                claim.since = now
        for claim in group.claims.values():
            if claim.since is not None:
                claim.waits, claim.refused = None, False
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
        """A part of what a stack had is still its own when it claims no more than that part."""
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
        """What the configuration gives to somebody nobody else holds; and of two that claim to hold an area,
        which managers may record for a moment, the one that has had it longer does."""
        for claim in group.claims.values():
            if claim.since is not None and self._by_configuration(name, claim.owner, claim.area) is not None:
                claim.since = None
        held = sorted(
            (one for one in group.claims.values() if one.since is not None),
            key=lambda one: (one.since, one.owner),
        )
        for position, claim in enumerate(held):
            if self._configured(name, claim.area) == claim.owner:
                continue
            for other in held[:position]:
                if claim.recorded and other.recorded:
                    continue  # a manager has decided between them
                around = other.area.whole or claim.area.whole or covers(other.area.path, claim.area.path)
                if other.since is not None and other.owner != claim.owner and around:
                    claim.since = None
                    break

    def _place_in_line(self, claim: _Claim, now: float) -> tuple[float, int, str, str]:
        """Of those that begin at the same moment the narrowest come first: then most are served."""
        if claim.waits is None:
            narrow = NARROWEST_FIRST * len(claim.area.path.text) if claim.area.path is not None else 0
            claim.waits = now, narrow, claim.created, claim.owner
        return claim.waits

    def _configured(self, group: str, area: Area) -> str | None:
        """Whom the configuration gives the area to, if it does to anybody."""
        if group.startswith(("~", "*")):
            return None
        for path, stack in self.assigned.parts(group):
            if covers(PathKey(path, False), area.path):
                return stack
        return self.assigned(group)

    def _by_configuration(self, group: str, owner: str, area: Area) -> Holder | None:
        """Whom the configuration gives this to, if that is somebody else."""
        stack = self._configured(group, area)
        if area.whole and stack in (None, owner):  # no part of it may be anybody else's
            others = (one for _, one in self._parts(group) if one != owner)
            stack = next(others, stack)
        return Holder(stack, 0.0, True) if stack is not None and stack != owner else None

    def _parts(self, group: str) -> list[tuple[str, str]]:
        return [] if group.startswith(("~", "*")) else self.assigned.parts(group)

    def _blocking(self, name: str, group: _Group, claim: _Claim) -> Holder | None:
        """Who holds an area around it."""
        if (holder := self._by_configuration(name, claim.owner, claim.area)) is not None:
            return holder
        if self._configured(name, claim.area) == claim.owner:
            return None  # whoever has had it
        for other in group.claims.values():
            around = other.area.whole or claim.area.whole or covers(other.area.path, claim.area.path)
            if other.owner != claim.owner and other.since is not None and around:
                return Holder(other.owner, other.since)
        if name == "*" and claim.area.whole:
            return self._some_other(claim.owner)
        return None

    def _some_other(self, owner: str) -> Holder | None:
        """Somebody who holds hosts by an expression: connections for all other hosts would be of these."""
        for name in self._by_expression:
            for other in self._groups[name].claims.values():
                if other.owner != owner and other.since is not None and not other.area.whole:
                    return Holder(other.owner, other.since)
        return None

    # --- asked for ---

    def right(self, owner: str, area: Area) -> Right:
        """Of an area that this owner claims."""
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
        """Has somebody else had it longer than that, by an expression?"""
        for place in self._by_expression:
            for claim in self._groups[place].claims.values():
                older = claim.since is not None and claim.since <= since
                if older and claim.owner != owner and all(one.found(host) for one in _expressions(claim)):
                    return True
        return False

    def sole_holder(self, host: str, owner: str) -> Holder | None:
        """Somebody else who has this host, by its name, where this owner has no part of it."""
        if (holder := self._by_configuration(host, owner, Area(Breadth.ONE, host))) is not None:
            return holder
        held = [one for one in self._groups.get(host, _Group()).claims.values() if one.since is not None]
        if any(one.owner == owner for one in held):
            return None
        return next((Holder(one.owner, one.since) for one in held if one.since is not None), None)

    def is_anothers(self, host: str, owner: str) -> bool:
        """Does somebody else hold something of this host by its name?"""
        assigned = self.assigned(host)
        if assigned is not None:
            return assigned != owner
        group = self._groups.get(host)
        if group is None:
            return False
        return any(one.owner != owner and one.since is not None for one in group.claims.values())

    def since_of(self, name: Name, owner: str) -> float:
        """Since when this owner has declared a service or middleware of this name."""
        since, _ = self._names.get(name, {}).get(owner, (0.0, set()))
        return max(0.0, since)

    def holds(self, service: str) -> Mapping[str, float]:
        """What this service (id) claims and its stack holds, and since when: the record."""
        owner, claims = self._of.get(service, ("", Claims()))
        held: dict[str, float] = {}
        for area in claims.areas:
            claim = self._groups[area.group].claims[owner, area.path, area.whole]
            if claim.since is not None:
                held[area.key] = claim.since
        for name in claims.names:
            held[name_key(name)] = self.since_of(name, owner)
        return held

    def services_in(self, groups: Iterable[str]) -> set[str]:
        """Services (ids) that claim something there."""
        found: set[str] = set()
        for name in groups:
            for claim in self._groups.get(name, _Group()).claims.values():
                found |= claim.services
        return found

    def refused(self) -> Iterator[tuple[str, Area, Holder]]:
        """Service (id), what it claims, who has it."""
        for name, group in self._groups.items():
            for claim in group.claims.values():
                if claim.since is None:
                    holder = self._blocking(name, group, claim) or Holder("", 0.0)
                    for service in claim.services:
                        yield service, claim.area, holder


def _expressions(claim: _Claim) -> tuple[Expression, ...]:
    return tuple(map(Expression, claim.area.fits))
