"""How names are written."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.model import Container
from mesh.dns.names import address_of, pointer_name


@given(st.ip_addresses())
def test_a_reversed_name_stands_for_its_address(address: object) -> None:
    reverse = ip_address(str(address)).reverse_pointer
    assert address_of(reverse) == str(address)


@pytest.mark.parametrize(
    "name",
    [
        "in-addr.arpa",
        ".in-addr.arpa",
        "1.10.in-addr.arpa",
        "5.4.3.2.1.in-addr.arpa",
        "256.0.1.10.in-addr.arpa",
        "03.0.1.10.in-addr.arpa",
        "x.0.1.10.in-addr.arpa",
        "3.0..10.in-addr.arpa",
        "3.0.1.10.in-addr.arpa.frontend",
        "1" * 64 + ".0.1.10.in-addr.arpa",
        "ip6.arpa",
        "2." + "0." * 29 + "d.ip6.arpa",
        "2." + "0." * 29 + "d.g.ip6.arpa",
        "22." + "0." * 29 + "d.f.ip6.arpa",
        "web",
        "",
    ],
)
def test_what_is_no_reversed_address(name: str) -> None:
    assert address_of(name) == ""


def test_a_name_that_dns_cannot_hold_is_pointed_to_by_its_id() -> None:
    """On its own node as on the others, which are told of no other name."""
    assert pointer_name(Container("0123456789abcdef", "web.1", "")) == "web.1"
    assert pointer_name(Container("0123456789abcdef", "a" * 64, "")) == "0123456789ab"
