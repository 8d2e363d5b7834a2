"""Connections by address: what enters leaves, and no more enter than may."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.net.limits.per_client_limit import Addresses


def test_a_network_of_ipv6_is_one() -> None:
    addresses = Addresses(2)
    assert [addresses.enter(one) for one in ("2001:db8::1", "2001:db8::2", "2001:db8::3")] == [
        True,
        True,
        False,
    ]
    assert addresses.enter("2001:db8:0:1::1")
    assert addresses.enter("fe80::1%eth0")
    addresses.leave("2001:db8::9")  # of the same network
    assert addresses.enter("2001:db8::3")


@given(st.integers(0, 3), st.lists(st.tuples(st.sampled_from(["a", "b", "::1", "::2"]), st.booleans())))
def test_counts_are_right(most: int, steps: list[tuple[str, bool]]) -> None:
    addresses, inside = Addresses(most), list[str]()
    for name, enters in steps:
        if enters:
            same = [one for one in inside if one == name or (":" in one and ":" in name)]
            assert addresses.enter(name) == (not most or len(same) < most)
            if not most or len(same) < most:
                inside.append(name)
        elif name in inside:
            inside.remove(name)
            addresses.leave(name)
    for one in inside:
        addresses.leave(one)
    assert len(addresses) == 0
