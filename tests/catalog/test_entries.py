"""An entry's address and MAC have one owner, whoever claims them, in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.entries import (
    ClaimFault,
    EntryClaim,
    EntryFacts,
    claim_fault,
    derived_mac,
    gateways_of,
    judge,
)

SUBNETS = ("10.0.0.0/24", "fd00::/64")
FACTS = EntryFacts(SUBNETS, others=frozenset({"10.0.0.1", "10.0.0.9"}))
RANDOM_MAC = "7e:11:22:33:44:55"


def entry(number: int) -> EntryClaim:
    address = f"10.0.0.{number}"
    return EntryClaim(address, derived_mac(address))


def test_macs_are_derived_as_docker_does() -> None:
    """As engine 20.10.24 shows it for `ingress-sbox`."""
    assert derived_mac("10.0.0.2") == "02:42:0a:00:00:02"
    assert derived_mac("10.255.0.17") == "02:42:0a:ff:00:11"
    assert derived_mac("x") == ""


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        (EntryClaim(""), None),
        (entry(2), None),
        (EntryClaim("10.0.0.2"), None),
        (EntryClaim("10.0.0.2", RANDOM_MAC), None),
        (EntryClaim("", "02:42:0a:00:00:02"), ClaimFault.MAC),
        (EntryClaim("x", "02:42:0a:00:00:02"), ClaimFault.ADDRESS),
        (EntryClaim("10.0.1.2", derived_mac("10.0.1.2")), ClaimFault.ADDRESS),
        (EntryClaim("10.0.0.0"), ClaimFault.ADDRESS),
        (EntryClaim("10.0.0.255"), ClaimFault.ADDRESS),
        (EntryClaim("10.0.0.02"), ClaimFault.ADDRESS),
        (EntryClaim("fd00::2"), ClaimFault.ADDRESS),
        (EntryClaim("127.0.0.1"), ClaimFault.ADDRESS),
        (EntryClaim("10.0.0.3", "02:42:0a:00:00:02"), ClaimFault.MAC),
        (EntryClaim("10.0.0.3", "01:42:0a:00:00:03"), ClaimFault.MAC),
        (EntryClaim("10.0.0.3", "00:00:00:00:00:00"), ClaimFault.MAC),
        (EntryClaim("10.0.0.3", "ff:ff:ff:ff:ff:ff"), ClaimFault.MAC),
        (EntryClaim("10.0.0.3", "nonsense"), ClaimFault.MAC),
        (EntryClaim("10.0.0.1", derived_mac("10.0.0.1")), ClaimFault.ADDRESS),
        (EntryClaim("10.0.0.9", derived_mac("10.0.0.9")), ClaimFault.ADDRESS),
    ],
)
def test_a_claim_by_itself(claim: EntryClaim, fault: ClaimFault | None) -> None:
    judged = judge({"n1": claim}, FACTS)
    assert judged.refused.get("n1") == fault
    assert ("n1" in judged.accepted) == (fault is None)


def test_without_a_known_subnet_only_the_form_is_judged() -> None:
    assert claim_fault(entry(2), None) is None
    for address in ("x", "224.0.0.1", "127.0.0.1", "0.0.0.0"):
        assert claim_fault(EntryClaim(address), None) is ClaimFault.ADDRESS


class TestTwoClaims:
    def test_the_one_before_stays(self) -> None:
        held = {"n9": EntryClaim("10.0.0.5", RANDOM_MAC)}
        claims = {**held, "n1": EntryClaim("10.0.0.6", RANDOM_MAC), "n2": EntryClaim("10.0.0.5")}
        judged = judge(claims, FACTS, held)
        assert judged.accepted == held
        assert judged.refused == {"n1": ClaimFault.TAKEN, "n2": ClaimFault.TAKEN}

    def test_the_engine_knows_better_than_who_came_first(self) -> None:
        lie = {"n1": entry(3)}
        facts = EntryFacts(SUBNETS, proven={"n2": "10.0.0.3"})
        assert judge(lie, facts, held=lie).refused == {"n1": ClaimFault.ADDRESS}
        judged = judge({**lie, "n2": entry(3)}, facts, held=lie)
        assert judged.accepted == {"n2": entry(3)}

    def test_a_node_whose_entry_is_known_has_no_other(self) -> None:
        facts = EntryFacts(SUBNETS, proven={"n1": "10.0.0.2"})
        assert judge({"n1": entry(4)}, facts).refused == {"n1": ClaimFault.ADDRESS}

    def test_our_own_is_nobody_elses(self) -> None:
        facts = EntryFacts(SUBNETS, own=EntryClaim("10.0.0.2", RANDOM_MAC))
        claims = {"n1": EntryClaim("10.0.0.2"), "n2": EntryClaim("10.0.0.3", RANDOM_MAC)}
        assert judge(claims, facts).refused == dict.fromkeys(("n1", "n2"), ClaimFault.TAKEN)

    def test_of_two_at_once_the_one_with_the_mac_of_its_address(self) -> None:
        claims = {"n1": EntryClaim("10.0.0.2", RANDOM_MAC), "n2": entry(2)}
        assert judge(claims, FACTS).accepted == {"n2": entry(2)}


def test_gateways_where_nobody_has_chosen() -> None:
    assert list(gateways_of(SUBNETS)) == ["10.0.0.1"]


claims = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        EntryClaim,
        st.sampled_from(["", "x", *(f"10.0.0.{n}" for n in range(6)), "10.0.1.2"]),
        st.sampled_from(["", RANDOM_MAC, *(derived_mac(f"10.0.0.{n}") for n in range(6))]),
    ),
)
known = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([f"10.0.0.{n}" for n in range(2, 6)]))


@given(claims, claims, known)
def test_whatever_is_claimed_each_has_one_owner(
    said: dict[str, EntryClaim], before: dict[str, EntryClaim], proven: dict[str, str]
) -> None:
    facts = EntryFacts(SUBNETS, EntryClaim("10.0.0.2", derived_mac("10.0.0.2")), proven)
    held = judge(before, facts).accepted
    judged = judge(said, facts, held)
    assert judged.accepted.keys() | judged.refused.keys() == said.keys()
    assert not judged.accepted.keys() & judged.refused.keys()
    with_own = [*judged.accepted.values(), EntryClaim("10.0.0.2", derived_mac("10.0.0.2"))]
    for values in ([one.address for one in with_own], [one.mac for one in with_own]):
        set_ones = [one for one in values if one]
        assert len(set_ones) == len(set(set_ones))
    assert judge(said, facts, judged.accepted) == judged, "nothing changes by judging again"
    for node, claim in judged.accepted.items():
        assert not claim.address or proven.get(node, claim.address) == claim.address
