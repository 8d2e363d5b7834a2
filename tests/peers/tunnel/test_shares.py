"""Who gets a tunnel, and who gives way: no peer keeps the others out."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.peers.tunnel.shares import Shares, Tunnel

TOTAL, SHARE = 6, 4


def opened(shares: Shares, peer: str, at: float) -> str:
    """As the server does it; returns why not."""
    if why := shares.refusal(peer, TOTAL, SHARE):
        return why
    if (other := shares.giving_way(peer, TOTAL)) is not None:
        shares.remove(other)
    shares.add(Tunnel(peer, at))
    return ""


def test_a_peer_has_its_share_and_no_more() -> None:
    shares = Shares()
    assert [opened(shares, "a", at) for at in range(5)] == [""] * 4 + ["too many of one node"]
    assert opened(shares, "b", 9) == ""


def test_the_one_with_the_most_loses_the_longest_silent() -> None:
    shares = Shares()
    for at in range(4):
        opened(shares, "a", 10 + at)
    for at in range(2):
        opened(shares, "b", at)
    assert opened(shares, "c", 20) == ""
    assert sorted(one.at for one in shares.of("a")) == [11, 12, 13]
    assert len(shares) == TOTAL
    assert opened(shares, "c", 21) == ""
    assert opened(shares, "c", 22) == "too many", "nobody has more by two"


def test_what_ends_is_gone() -> None:
    shares, tunnel = Shares(), Tunnel("a", 0.0)
    shares.add(tunnel)
    assert shares.peers == {"a"}
    shares.remove(tunnel)
    shares.remove(tunnel)
    assert (len(shares), shares.peers) == (0, frozenset())


@given(st.lists(st.sampled_from("aabc"), max_size=40))
def test_limits_hold_and_everybody_gets_something(peers: list[str]) -> None:
    shares = Shares()
    for at, peer in enumerate(peers):
        opened(shares, peer, at)
        assert len(shares) <= TOTAL
        assert all(len(shares.of(one)) <= SHARE for one in shares.peers)
        assert shares.of(peer), "whoever asks has one"
