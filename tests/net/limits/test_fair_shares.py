"""Shares of a limited number of places."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.net.limits.fair_shares import FairShares, share_key


def shares(places: int = 4, per_owner: int = 3, **owners: int) -> FairShares[str, str]:
    made: FairShares[str, str] = FairShares(places, per_owner)
    for owner, count in owners.items():
        for number in range(count):
            made.add(owner, f"{owner}{number}")
    return made


def test_an_owner_has_its_share_and_no_more() -> None:
    made = shares(a=2)
    assert not made.has_its_share("a")
    made.add("a", "a2")
    assert made.has_its_share("a")
    assert made.oldest_of("a") == "a0"
    assert not made.has_its_share("b")
    assert made.remove("a0")
    assert not made.remove("a0")
    assert (made.count("a"), len(made), made.owners) == (2, 2, 1)


def test_whoever_has_the_most_gives_way_with_the_oldest() -> None:
    made = shares(b=1, a=3)
    assert made.full
    assert made.to_give_way("c") == "a0"
    assert made.to_give_way("b") == "a0"
    assert made.to_give_way("a") is None
    made.remove("a0")
    assert made.to_give_way("b") is None  # both would have two


def test_nobody_gives_way_to_one_who_would_have_as_many() -> None:
    assert shares(a=1, b=1, c=1, d=1).to_give_way("e") is None
    assert shares().to_give_way("a") is None
    assert shares(a=1, b=1).oldest() == "a0"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans()), max_size=60))
def test_it_counts_as_a_list_would(steps: list[tuple[str, int, bool]]) -> None:
    made: FairShares[str, tuple[str, int]] = FairShares(10, 5)
    plain: list[tuple[str, int]] = []
    for owner, number, add in steps:
        item = (owner, number)
        if add and item not in plain:
            made.add(owner, item)
            plain.append(item)
        elif not add:
            assert made.remove(item) is (item in plain)
            plain = [one for one in plain if one != item]
        counts = Counter(owner for owner, _ in plain)
        assert list(made) == plain
        assert made.oldest() == next(iter(plain), None)
        victim = made.to_give_way("new")
        if max(counts.values(), default=0) <= 1:
            assert victim is None
        else:
            assert victim is not None
            assert counts[victim[0]] == max(counts.values())
            assert victim == next(one for one in plain if one[0] == victim[0])


def test_an_address_of_ipv6_shares_with_its_network() -> None:
    assert share_key("192.0.2.1") != share_key("192.0.2.2")
    assert share_key("2001:db8::1") == share_key("2001:db8::ffff:1") != share_key("2001:db8:0:1::1")
    assert share_key("fe80::1%eth0") == share_key("fe80::2")
