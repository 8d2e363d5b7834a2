"""A subscriber that raises: the others get every change, it gets all but what it can't take."""

from collections.abc import Callable

import pytest

from mesh.catalog.model import Asker, Node, Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.catalog.subscription import FIRST_HOLD, FIRST_PAUSE, LAST_PAUSE
from mesh.internal_errors import ERRORS


class Clock:
    """What the loop would call later, called by hand."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, step: Callable[[], None]) -> None:
        self.due.append((seconds, step))

    def run(self) -> list[float]:
        """All that is due now, whatever the pause. Returns the pauses."""
        now, self.due = self.due, []
        for _, step in now:
            step()
        return [seconds for seconds, _ in now]

    def run_turns(self) -> None:
        """Whatever is due in the next turns of the loop."""
        while any(seconds == 0 for seconds, _ in self.due):
            self.run()


class Names:
    """A subscriber that keeps services' names; a service with the label `bad` makes it raise half way."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.calls = 0
        self.broken = False

    def update(self, _old: Snapshot, new: Snapshot, change: Change) -> None:
        self.calls += 1
        for id_ in change.services:
            service = new.services.get(id_)
            if service is None:
                del self.names[id_]
                continue
            self.names[id_] = service.name
            if self.broken or "bad" in service.labels:
                self.names["half"] = "done"
                raise ValueError("no such number")

    def restart(self, snapshot: Snapshot) -> None:
        self.names.clear()
        self.update(Snapshot(), snapshot, snapshot.as_change())


@pytest.fixture(autouse=True)
def _no_errors_before() -> None:
    ERRORS.clear()


def service(number: int, bad: bool = False, version: str = "") -> Service:
    labels = ({"bad": version or "1"} if bad else {}) | ({"version": version} if version else {})
    return Service(f"s{number}", f"web{number}", labels=labels)


def services(count: int, bad: set[int]) -> Change:
    return Change(services={f"s{n}": service(n, n in bad) for n in range(count)})


def good_names(count: int, bad: set[int]) -> dict[str, str]:
    return {f"s{n}": f"web{n}" for n in range(count) if n not in bad}


@pytest.mark.parametrize("bad", [{0}, {99}, {50}, {3, 4, 97}, set(range(10))])
def test_the_culprits_among_many_are_found_and_nobody_else_misses_anything(bad: set[int]) -> None:
    clock, good, names = Clock(), Names(), Names()
    store = Store(later=clock.later)
    store.subscribe(names.update, "names", names.restart)
    store.subscribe(lambda _old, new, _change: good.names.update(dict.fromkeys(new.services, "")), "good")
    store.publish(services(100, bad))
    assert len(good.names) == 100  # at once, whatever becomes of the other
    clock.run_turns()
    assert names.names == good_names(100, bad)
    assert names.calls < 4 + len(bad) * 2 * 2 * 8  # O(log n) tries for each
    assert ERRORS.counts == {"subscriber names": len(bad)}
    told = list(ERRORS.problems())
    assert all(f"service web{number}: fault of ours in subscriber names" in " ".join(told) for number in bad)


def test_one_bad_service_is_found_at_once() -> None:
    clock, names = Clock(), Names()
    store = Store(later=clock.later)
    store.subscribe(names.update, "names", names.restart)
    store.publish(services(3, set()))
    store.publish(Change(services={"s7": service(7, bad=True)}))
    assert names.names == good_names(3, set())
    store.publish(Change(services={"s8": service(8)}))
    assert "s8" in names.names
    assert "s7" not in names.names
    assert store.current.services["s7"].name == "web7"  # readers and others have it


def test_quarantine_ends_when_the_data_changes() -> None:
    clock, names = Clock(), Names()
    store = Store(later=clock.later)
    store.subscribe(names.update, "names", names.restart)
    store.publish(Change(services={"s1": service(1, bad=True), "s2": service(2)}))
    clock.run_turns()
    calls = names.calls
    store.publish(Change(services={"s1": service(1, bad=True)}))
    assert names.calls == calls  # it is not even tried
    store.publish(Change(services={"s1": service(1, bad=True, version="2")}))
    assert "s1" not in names.names
    store.publish(Change(services={"s1": service(1)}))
    assert names.names == {"s1": "web1", "s2": "web2"}
    assert not any("web1" in one for one in ERRORS.problems())


def test_a_service_in_quarantine_that_is_removed_is_forgotten() -> None:
    names, store = Names(), Store(later=Clock().later)
    store.subscribe(names.update, "names", names.restart)
    store.publish(Change(services={"s1": service(1, bad=True)}))
    store.publish(Change(services={"s1": None}))  # a KeyError of a subscriber that has never had it
    store.publish(Change(services={"s2": service(2)}))
    assert names.names == {"s2": "web2"}


def test_what_was_a_passing_fault_is_tried_again() -> None:
    clock, names = Clock(), Names()
    store = Store(later=clock.later)
    store.subscribe(names.update, "names", names.restart)
    fails = iter([True])
    update = names.update

    def once(old: Snapshot, new: Snapshot, change: Change) -> None:
        update(old, new, change)
        if next(fails, False):
            raise OSError("no descriptor left")

    store.subscriptions[0].update = once
    store.publish(Change(services={"s1": service(1)}))
    assert names.names == {}
    assert clock.run() == [FIRST_HOLD]
    assert names.names == {"s1": "web1"}
    assert not any("web1" in one for one in ERRORS.problems())


def test_a_subscriber_that_cannot_even_begin_is_tried_again_with_growing_pauses() -> None:
    clock, names, good = Clock(), Names(), Names()
    store = Store(later=clock.later)
    store.subscribe(names.update, "names", names.restart)
    store.subscribe(good.update, "good", good.restart)

    def fail(_snapshot: Snapshot) -> None:
        raise RuntimeError("a bug")

    store.subscriptions[0]._restart = fail
    names.broken = True
    store.publish(services(3, set()))
    pauses = [pause for _ in range(9) for pause in clock.run()]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE, LAST_PAUSE)
    store.publish(Change(services={"s1": None, "s9": service(9)}))
    assert good.names == {"s0": "web0", "s2": "web2", "s9": "web9"}
    assert any("names is down" in one for one in ERRORS.problems())
    names.broken, store.subscriptions[0]._restart = False, names.restart
    clock.run()
    clock.run_turns()
    assert names.names == good.names
    assert not any("names is down" in one for one in ERRORS.problems())
    assert store.subscriptions[0].up


def test_without_a_restart_everything_is_told_as_changed() -> None:
    told: list[tuple[list[str], list[str]]] = []
    fails = iter([False, True])

    def update(_old: Snapshot, new: Snapshot, change: Change) -> None:
        told.append((sorted(change.services), sorted(new.services)))
        if next(fails, False):
            raise RuntimeError("a bug")

    store = Store(later=Clock().later)
    store.subscribe(update, "marks")
    store.publish(services(2, set()))
    store.publish(Change(services={"s0": None, "s5": service(5)}))
    assert told[1] == (["s0", "s5"], ["s1", "s5"])  # where it failed
    assert told[2] == (["s0", "s1", "s5"], ["s0", "s1"])  # anew
    assert store.subscriptions[0].up
    assert told[-1][1] == ["s1", "s5"]


def test_all_kinds_of_entries_are_told_apart() -> None:
    seen: list[Snapshot] = []

    def update(_old: Snapshot, new: Snapshot, _change: Change) -> None:
        if new.askers or "bad" in new.nodes:
            raise ValueError("cannot be read")
        seen.append(new)

    clock = Clock()
    store = Store(later=clock.later)
    store.subscribe(update, "sees")
    store.publish(
        Change(
            nodes={"bad": Node("bad", "n", ""), "good": Node("good", "g", "")},
            services={"s1": service(1)},
            askers=(Asker("a", "10.0.0.0/8", ()),),
        )
    )
    clock.run_turns()
    assert (set(seen[-1].nodes), set(seen[-1].services), seen[-1].askers) == ({"good"}, {"s1"}, ())
    assert set(store.subscriptions[0].quarantined) == {("nodes", "bad"), ("askers", "")}


def test_subscribers_are_told_in_the_order_of_the_list() -> None:
    told: list[str] = []
    store = Store(order=("first", "second", "third"))
    for name in ("third", "first", "second"):
        store.subscribe(lambda _old, _new, _change, name=name: told.append(name), name)
    store.publish(services(1, set()))
    assert told == ["first", "second", "third"]
    with pytest.raises(KeyError):
        store.subscribe(lambda _old, _new, _change: None, "of no list")


def test_what_several_processes_leave_out_counts_once_and_what_is_made_up_never() -> None:
    store = Store(later=Clock().later, order=("names", "http"))
    names = Names()
    store.subscribe(names.update, "names", names.restart)
    store.publish(Change(services={"s1": service(1, bad=True), "s2": service(2)}))
    assert store.quarantined() == {"names": 1}
    told = [("names", "services", "s1"), ("names", "services", "s2"), ("http", "services", "s2")]
    made_up = [
        ("nobody", "services", "s2"),
        ("http", "services", "s9"),
        ("http", "version", ""),
        ("http", "askers", ""),
    ]
    assert store.quarantined([*told, *made_up]) == {"names": 2, "http": 1}
