"""The catalogue's value and its one mutable cell."""

from mesh.catalog.diff import difference
from mesh.catalog.model import Network, Service, ServiceNetwork
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store

ON_BOTH = (ServiceNetwork("n1", "10.0.1.2"), ServiceNetwork("n2", "10.0.2.2"))
WEB = Service(id="s1", name="web", networks=ON_BOTH)


def names_on(snapshot: Snapshot, network: str) -> list[str]:
    return sorted(service.name for service in snapshot.services_on(network))


def test_apply_makes_a_new_version_and_leaves_the_old_one_as_it_was() -> None:
    before = Snapshot()
    after = before.apply(Change(services={"s1": WEB}))
    assert (before.version, len(before.services)) == (0, 0)
    assert (after.version, after.services["s1"]) == (1, WEB)
    assert names_on(after, "n1") == names_on(after, "n2") == ["web"]


def test_a_service_that_leaves_a_network_leaves_its_members_too() -> None:
    both = Snapshot().apply(Change(services={"s1": WEB}))
    moved = Service(id="s1", name="web", networks=(ServiceNetwork("n2", "10.0.2.2"),))
    one = both.apply(Change(services={"s1": moved}))
    assert names_on(one, "n1") == []
    assert "n1" not in one.members
    assert names_on(one.apply(Change(services={"s1": None})), "n2") == []


def test_removing_what_is_not_there_is_no_error() -> None:
    assert len(Snapshot().apply(Change(services={"ghost": None})).services) == 0


def test_difference_names_only_what_differs() -> None:
    old = Snapshot().apply(Change(services={"s1": WEB}, networks={"n1": Network("n1", "one")}))
    same = difference(old, services={"s1": WEB}, networks={"n1": Network("n1", "one")})
    assert not same
    change = difference(old, services={}, networks={"n1": Network("n1", "one"), "n2": Network("n2", "two")})
    assert change.services == {"s1": None}
    assert list(change.networks) == ["n2"]


def test_store_tells_subscribers_after_the_swap_and_survives_a_failing_one() -> None:
    failures: list[Exception] = []
    told: list[tuple[int, int]] = []
    store = Store(on_error=failures.append)

    def broken(_old: Snapshot, _new: Snapshot, _change: Change) -> None:
        raise RuntimeError("bug")

    store.subscribe(broken)
    end = store.subscribe(lambda old, new, _change: told.append((old.version, store.current.version)))
    store.publish(Change(services={"s1": WEB}))
    store.publish(Change())  # empty: no version
    end()
    store.publish(Change(services={"s1": None}))
    assert told == [(0, 1)]
    assert [str(f) for f in failures] == ["bug", "bug"]
    assert store.current.version == 2
