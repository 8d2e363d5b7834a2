"""What a DNS worker learns of the catalogue by messages."""

from mesh.catalog.model import Asker, Network, Node, Service
from mesh.catalog.snapshot import Change, Snapshot
from sidecar.workers.dns_messages import TOLD, LearnDns


def snapshot(*services: str, network: str = "n", askers: tuple[Asker, ...] = ()) -> Snapshot:
    return Snapshot().apply(
        Change(
            nodes={"here": Node("here", "here", "10.0.0.1")},
            networks={network: Network(network, network)},
            services={name: Service(name, name) for name in services},
            askers=askers,
        )
    )


def content(one: Snapshot) -> Change:
    """Without the version."""
    return one.as_change()


def test_a_change_leaves_what_it_does_not_name() -> None:
    known = snapshot("a", "b")
    learned = known.apply(LearnDns.of(Change(services={"a": None})).change(known))
    assert set(learned.services) == {"b"}
    assert set(learned.networks) == {"n"}


def test_the_whole_ends_everything_that_it_does_not_name() -> None:
    asker = Asker("tests", "127.0.0.0/8", ("n",))
    stale = snapshot("a", "b", network="old", askers=(asker,))
    right = snapshot("b", "c", network="new")
    assert content(stale.apply(LearnDns.all_of(right).change(stale))) == content(right)


def test_the_whole_passes_through_the_channel_as_it_is() -> None:
    message = LearnDns.all_of(snapshot("a"))
    assert TOLD.decode(TOLD.encode(message)) == message
