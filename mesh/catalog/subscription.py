"""One subscriber to the catalogue, kept apart from the others and from the data that it cannot take.

A subscriber that raises has taken part of a change, so what it holds is unknown. It is brought up again:

    restart   it forgets what it holds and takes the last snapshot that it took whole
    feed      it is given what has changed since; what fails is halved, until it is one entry: the culprit
    hold      that entry goes into quarantine: this subscriber's snapshots lack it, others' do not

So it takes O(log n) tries to find one culprit among n changed entries. An entry leaves quarantine when its
data changes, and is tried again after a growing pause, for the fault may have been a passing one. Where not
even a restart succeeds, the subscriber begins from nothing; where that fails too, it is down, and is tried
again after a growing pause, with the whole snapshot of then. Each try is a turn of the loop of its own.

Nothing here raises. Time is the caller's: `later(seconds, step)`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from mesh.catalog.snapshot import Change, Snapshot
from mesh.internal_errors import ERRORS

FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0  # seconds before a subscriber that is down is tried again
FIRST_HOLD, LAST_HOLD = 30.0, 3600.0  # seconds before what is in quarantine is tried again
TRIES_AT_ONCE = 4  # in one turn of the loop: enough for a change of one entry
TRIES_MAX = 128  # in a row: seven culprits among 1,000 entries; then a pause

Update = Callable[[Snapshot, Snapshot, Change], None]
Restart = Callable[[Snapshot], None]
Later = Callable[[float, Callable[[], None]], object]
Key = tuple[str, str]  # field of a Change, id; of the askers, which are one entry, ("askers", "")

ASKERS: Key = ("askers", "")
KINDS = tuple(one.name for one in fields(Change) if one.name != "askers")


def keys_of(change: Change) -> list[Key]:
    """Every entry of a change."""
    found = [(kind, id_) for kind in KINDS for id_ in getattr(change, kind)]
    return found if change.askers is None else [*found, ASKERS]


def entries_of(snapshot: Snapshot) -> list[Key]:
    """Every entry of a snapshot."""
    return [key for key in keys_of(snapshot.as_change()) if key != ASKERS or snapshot.askers]


def value_of(snapshot: Snapshot, key: Key) -> Any:
    """The entity; None where there is none."""
    kind, id_ = key
    return snapshot.askers if key == ASKERS else getattr(snapshot, kind).get(id_)


def change_to(snapshot: Snapshot, keys: Iterable[Key]) -> Change:
    """What makes these entries what they are in `snapshot`."""
    found: dict[str, dict[str, Any]] = {}
    askers = None
    for key in keys:
        if key == ASKERS:
            askers = snapshot.askers
        else:
            found.setdefault(key[0], {})[key[1]] = value_of(snapshot, key)
    return Change(askers=askers, **found)


def without(snapshot: Snapshot, keys: Iterable[Key]) -> Snapshot:
    """The same version without these entries."""
    gone: dict[str, dict[str, None]] = {}
    askers: tuple[()] | None = None
    for key in keys:
        if key == ASKERS:
            askers = ()
        else:
            gone.setdefault(key[0], {})[key[1]] = None
    lacking = snapshot.apply(Change(askers=askers, **gone))
    return replace(lacking, version=snapshot.version)


def described(snapshot: Snapshot, key: Key) -> str:
    """An entry as people know it."""
    kind, id_ = key
    name = getattr(value_of(snapshot, key), "name", "") if key != ASKERS else ""
    return f"{kind.removesuffix('s')} {name or id_}".strip()


@dataclass(slots=True)
class _HeldChange:
    """An entry in quarantine: the value that could not be taken, and how it is named."""

    value: Any
    subject: str


class Subscription:
    """`update` takes a change; `restart` forgets everything and takes a whole snapshot.

    Where there is no `restart`, `update` is given all entries as changed, which is the same for whoever only
    notes what is to be looked at.
    """

    def __init__(
        self, name: str, update: Update, restart: Restart | None, now: Snapshot, later: Later | None
    ) -> None:
        self.name = name
        self.update = update
        self._restart = restart
        self._later = later
        self._target = now
        self._seen = now  # the last snapshot that it took whole
        self._held: dict[Key, _HeldChange] = {}
        self._up = True
        self._unknown = False  # it holds what nobody knows: it has to be restarted
        self._todo: list[list[Key]] = []  # last in, first out
        self._pending: dict[Key, None] = {}  # what has changed since it was not up any more
        self._tried: dict[Key, None] = {}  # entries that it may hold, beside those of `_seen`
        self._tries = 0
        self._pause, self._hold_pause = FIRST_PAUSE, FIRST_HOLD
        self._waiting = False  # for `later`
        self._ended = False
        self._error = Exception()  # the last one

    @property
    def where(self) -> str:
        return f"subscriber {self.name}"

    @property
    def quarantined(self) -> tuple[Key, ...]:
        return tuple(self._held)

    @property
    def up(self) -> bool:
        """Has it taken all that it can take?"""
        return self._up

    def identify(self, node: str) -> None:
        self._seen, self._target = (replace(one, this_node=node) for one in (self._seen, self._target))

    def begin(self) -> None:
        """Take what there is."""
        if not self._begin_anew(self._seen):
            self._up, self._unknown = False, True
            self._recover()

    def end(self) -> None:
        """It is told no more."""
        self._ended = True
        for held in self._held.values():
            ERRORS.mended(self.where, held.subject)
        ERRORS.mended(self.where, self._subject)

    def publish(self, old: Snapshot, new: Snapshot, change: Change) -> Exception | None:
        """The next version. Returns what the subscriber raised at it."""
        self._target = new
        self._release(change, new)
        keys = [key for key in keys_of(change) if key not in self._held] if self._held else None
        if not self._up:
            self._pending.update(dict.fromkeys(keys_of(change) if keys is None else keys))
            if self._later is not None:
                return None
            self._recover()
            return None if self._up else self._error
        if keys is not None:
            old, new, change = self._seen, without(new, self._held), change_to(new, keys)
        if change and not self._take(old, new, change):
            error = self._error
            self._failed(keys_of(change))
            self._recover()
            return error
        self._seen = new
        return None

    # --- one try ---

    def _take(self, old: Snapshot, new: Snapshot, change: Change) -> bool:
        try:
            self.update(old, new, change)
        except Exception as error:  # noqa: BLE001 - the boundary of a subscriber: others must get the change
            self._error = error
            return False
        return True

    def _begin_anew(self, snapshot: Snapshot) -> bool:
        try:
            if self._restart is not None:
                self._restart(snapshot)
            else:
                mine = dict.fromkeys([*entries_of(snapshot), *self._tried])
                self.update(snapshot, snapshot, change_to(snapshot, mine))
        except Exception as error:  # noqa: BLE001 - the boundary of a subscriber: others must get the change
            self._error = error
            return False
        return True

    def _failed(self, keys: list[Key]) -> None:
        """It could not take these entries of the target."""
        self._up, self._unknown = False, True
        self._tried.update(dict.fromkeys(keys))
        if len(keys) > 1:
            middle = (len(keys) + 1) // 2
            self._todo += [keys[middle:], keys[:middle]]
            return
        (key,) = keys
        subject = described(self._target if value_of(self._target, key) is not None else self._seen, key)
        if value_of(self._target, key) is None:  # at forgetting it; what is restarted has never had it
            self._seen = self._seen.apply(change_to(self._target, keys))
            ERRORS.report(self.where, self._error)
            return
        self._held[key] = _HeldChange(value_of(self._target, key), subject)
        self._seen = without(self._seen, keys)
        effect = f"it is left out of {self.name} until its data changes; all others go on"
        ERRORS.report(self.where, self._error, subject, effect)

    # --- bringing it up ---

    def _recover(self) -> None:
        """Some tries now, the others in turns of the loop of their own."""
        for _ in range(TRIES_MAX if self._later is None else TRIES_AT_ONCE):
            if self._up or not self._step():
                return
        if not self._up:
            self._go_on(0.0)

    def _step(self) -> bool:
        """One try. False: the next one is to come after a pause."""
        self._tries += 1
        if self._tries > TRIES_MAX:
            return self._is_down("more fails than can be told apart at once")
        if self._unknown:
            return self._try_restart()
        if not self._todo and not self._pending:
            self._is_up()
            return True
        if not self._todo:
            self._todo, self._pending = [list(self._pending)], {}
        keys = [key for key in self._todo.pop() if key not in self._held]
        change = change_to(self._target, keys)
        if change:
            new = self._seen.apply(change)
            if self._take(self._seen, new, change):
                self._seen = new
            else:
                self._failed(keys)
        return True

    def _try_restart(self) -> bool:
        if self._begin_anew(self._seen):
            self._unknown = False
            self._tried.clear()
            return True
        self._tried.update(dict.fromkeys(entries_of(self._seen)))
        self._todo, self._pending = [entries_of(self._target)], {}
        if not entries_of(self._seen):
            return self._is_down("it cannot begin")
        self._seen = Snapshot(this_node=self._target.this_node)
        return True

    def _is_up(self) -> None:
        self._up = True
        self._seen = without(self._target, self._held) if self._held else self._target
        self._tries, self._pause = 0, FIRST_PAUSE
        ERRORS.mended(self.where, self._subject)
        if self._held:
            self._go_on(self._hold_pause)
            self._hold_pause = min(LAST_HOLD, 2 * self._hold_pause)

    def _is_down(self, why: str) -> bool:
        effect = f"{why}; tried again in {self._pause:.0f} s; all others go on"
        ERRORS.report(self.where, self._error, self._subject, effect)
        self._tries = 0
        self._go_on(self._pause)
        self._pause = min(LAST_PAUSE, 2 * self._pause)
        return False

    @property
    def _subject(self) -> str:
        return f"{self.name} is down"

    def _go_on(self, seconds: float) -> None:
        if self._later is not None and not self._waiting:
            self._waiting = True
            self._later(seconds, self._due)

    def _due(self) -> None:
        self._waiting = False
        if self._ended:
            return
        if self._up:  # what is in quarantine is tried once more
            held, self._held = self._held, {}
            self._todo = [list(held)]
            self._up = False
            for one in held.values():
                ERRORS.mended(self.where, one.subject)
        self._recover()

    # --- quarantine ---

    def _release(self, change: Change, new: Snapshot) -> None:
        """What has other data now is not held any more."""
        if not self._held:
            return
        for key in keys_of(change):
            held = self._held.get(key)
            if held is not None and held.value != value_of(new, key):
                del self._held[key]
                self._hold_pause = FIRST_HOLD
                ERRORS.mended(self.where, held.subject)
