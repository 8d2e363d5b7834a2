"""Marks and the table that leads answers back."""

from itertools import pairwise

import pytest

from mesh.kernel.netfilter.transaction import as_text
from mesh.kernel.return_rules import mark_of, return_rules, return_update

SUBNETS = ("fd00::/64", "10.0.0.0/24", "10.5.0.0/8")


@pytest.mark.parametrize(
    ("entry", "mark"),
    [
        ("10.0.0.2", 0x6D650002),
        ("10.0.0.255", 0x6D6500FF),
        ("10.0.255.254", 0x6D65FFFE),  # of the wider subnet, whose first address counts
        ("10.0.255.255", None),  # the mark that means masquerading
        ("10.1.0.0", None),
        ("11.0.0.1", None),
        ("10.0.0.0", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_an_entrys_mark_is_its_place_in_the_subnet(entry: str, mark: int | None) -> None:
    assert mark_of(entry, SUBNETS) == mark


def test_updates_name_what_differs() -> None:
    states: list[dict[str, int]] = [{}, {"02:00": 1, "02:01": 2}, {"02:01": 3}, {"02:01": 3}]
    assert [as_text(return_update(before, after)) for before, after in pairwise(states)] == [
        "add element ip mesh_return entries { 02:00 : 0x1 }\n"
        "add element ip mesh_return entries { 02:01 : 0x2 }\n",
        "delete element ip mesh_return entries { 02:00 }\n"
        "delete element ip mesh_return entries { 02:01 }\n"
        "add element ip mesh_return entries { 02:01 : 0x3 }\n",
        "",
    ]
    assert return_rules("eth0", "10.0.0.9", states[2]).endswith(
        "add element ip mesh_return entries { 02:01 : 0x3 }\n"
    )
