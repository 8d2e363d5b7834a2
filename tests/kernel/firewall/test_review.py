"""What keeps clients out of a port, read from a kernel's rules: those of iptables and all others."""

import asyncio
from collections.abc import Iterator

import pytest

from mesh.kernel.firewall.filter_table import parse, plan_input
from mesh.kernel.firewall.listener_rules import MARK_NFT
from mesh.kernel.firewall.review import LISTENER_MARKS, review
from mesh.kernel.firewall.rule_walk import FirstPacket, Obstacle
from mesh.net.netns import Namespace
from tests.net.lab import inside, laboratory, needs_root

pytestmark = [pytest.mark.root, needs_root]

LISTENED = {
    "81/tcp": FirstPacket("tcp", 81, marks=LISTENER_MARKS),
    "81/tcp over IPv6": FirstPacket("tcp", 81, marks=LISTENER_MARKS, over_ipv6=True),
    "22/tcp": FirstPacket("tcp", 22),
}
FIREWALLD = """\
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES {
    iifname "ens32" goto filter_IN_public
    goto filter_IN_public
  }
  chain filter_IN_public {
    jump filter_IN_public_allow
    meta l4proto { icmp, ipv6-icmp } accept
  }
  chain filter_IN_public_allow {
    tcp dport 22 accept
  }
}
"""


@pytest.fixture
def box() -> Iterator[Namespace]:
    with laboratory() as lab:
        yield lab.namespace("box")


def reviewed(box: Namespace) -> dict[str, list[Obstacle]]:
    return asyncio.run(review(LISTENED, box.path))


def test_nothing_stands_in_the_way_of_an_empty_firewall(box: Namespace) -> None:
    assert reviewed(box) == {}


def test_firewalld_closes_what_no_zone_has_open(box: Namespace) -> None:
    inside(box, "nft", FIREWALLD)
    where = "inet firewalld filter_INPUT: reject with icmpx"
    (found,) = reviewed(box)["81/tcp"]
    assert (found.rule.startswith(where), found.everybody) == (True, True)
    assert "22/tcp" not in reviewed(box)
    inside(box, "nft", "add rule inet firewalld filter_IN_public_allow tcp dport { 80-90, 443 } accept")
    assert reviewed(box) == {}


def test_a_policy_of_the_operators_own_table_and_a_map_of_verdicts(box: Namespace) -> None:
    inside(box, "nft", "add table inet mine")
    inside(box, "nft", "add chain inet mine in { type filter hook input priority 0; policy drop; }")
    inside(box, "nft", "add rule inet mine in ct state vmap { established : accept, invalid : drop }")
    inside(box, "nft", "add rule inet mine in tcp dport vmap { 22 : accept, 443 : accept }")
    closed = [Obstacle("nft inet -P in DROP", True)]
    assert reviewed(box) == {"81/tcp": closed, "81/tcp over IPv6": closed}
    inside(box, "nft", "add rule inet mine in ip saddr 10.0.0.0/8 tcp dport 81 accept")
    assert reviewed(box)["81/tcp"] == [Obstacle("nft inet -P in DROP", False)]


def test_rules_of_iptables_in_both_families_are_told_as_they_were_written(box: Namespace) -> None:
    for program in ("iptables-nft", "ip6tables-nft"):
        inside(box, program, "-N", "DOCKER-USER")
        saved = inside(box, f"{program}-save", "-t", "filter")
        for line in plan_input(parse(saved), MARK_NFT).splitlines():
            if line.startswith(":"):
                inside(box, program, "-N", line.split()[0][1:])
            elif line.startswith("-"):
                inside(box, program, *line.split())
        source = "198.51.100.0/28" if program == "iptables-nft" else "2001:db8::/32"
        inside(box, program, *f"-A DOCKER-USER ! -s {source} -i ens32 -p tcp --dport 81 -j DROP".split())
    match = "-i ens32 -p tcp -m tcp --dport 81 -j DROP"
    assert reviewed(box) == {
        "81/tcp": [Obstacle(f"-A DOCKER-USER ! -s 198.51.100.0/28 {match}", False)],
        "81/tcp over IPv6": [Obstacle(f"-A DOCKER-USER ! -s 2001:db8::/32 {match}", False)],
    }
