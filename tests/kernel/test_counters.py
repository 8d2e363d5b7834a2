"""Counters: their text, their reading, totals that outlive a table, and what a real kernel counts."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import Protocol
from mesh.kernel.counters import CountedPort, Totals, counting_update, read_counters
from mesh.kernel.netfilter import nft, nft_batch
from mesh.kernel.netfilter.transaction import as_text
from mesh.kernel.rulesets import (
    LIST_COUNTERS,
    HostPath,
    PortTarget,
    host_rules,
    ingress_rules,
    ingress_update,
)
from tests.kernel.test_rules_kernel import greeting, ingress, refused
from tests.net.lab import Lab, laboratory, needs_root

LISTING = """table ip mesh {
	set begun {
		typeof ip protocol . th dport
		counter
		elements = { tcp . 80 counter packets 3 bytes 180,
			17 . 53 counter packets 0 bytes 0 }
	}
}
table ip mesh {
	set refused {
		typeof ip protocol . th dport
		counter
		elements = { 17 . 53 counter packets 2 bytes 9 }
	}
}
table ip mesh {
	set arrived {
		typeof ip protocol . th dport
		counter
		elements = { tcp . 80 counter packets 9 bytes 700 }
	}
}
table ip mesh {
	set answered {
		typeof ip protocol . th sport
		counter
	}
}
"""


def test_a_listing_is_read() -> None:
    assert read_counters(LISTING) == {"80/tcp": CountedPort(3, 0, 700, 0), "53/udp": CountedPort(0, 2)}
    assert read_counters("") == {}


def test_only_the_difference_is_told() -> None:
    assert counting_update("mesh", ["80/tcp"], ["80/tcp"]) == ()
    text = as_text(counting_update("mesh", ["80/tcp"], ["53/udp"]))
    assert "delete element ip mesh begun { tcp . 80 }\n" in text
    assert "add element ip mesh answered { udp . 53 }\n" in text


@given(st.lists(st.lists(st.integers(0, 9), min_size=1)), st.booleans())
def test_totals_add_up_over_tables(tables: list[list[int]], told: bool) -> None:
    """Every table counts from 0. Where nobody says that one begins, a reading no lower than the last one is
    taken to go on from it."""
    totals, expected, last = Totals(), 0, 0
    for steps in tables:
        counted = 0
        if told:
            totals.begin_anew()
            last = 0
        for step in steps:
            counted += step
            totals.take({"80/tcp": CountedPort(connections=counted)})
            expected += counted - last if counted >= last else counted
            last = counted
            assert totals.ports["80/tcp"].connections == expected
    if told:
        assert expected == sum(map(sum, tables))
    totals.take({})
    assert totals.ports == {}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


@pytest.mark.root
@needs_root
def test_connections_refusals_and_bytes_both_ways(lab: Lab) -> None:
    client, host, sandbox, _ = ingress(lab)
    ports = {
        "80/tcp": PortTarget(80, Protocol.TCP, 8080, Choice(("10.0.0.11",))),
        "81/tcp": PortTarget(81, Protocol.TCP, 8080),
    }
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0")))
    for _ in range(3):
        greeting(client, "10.8.0.60", 80)
    assert refused(client, "10.8.0.60", 81)
    found = sandbox.call(lambda: read_counters("".join(map(nft.run, LIST_COUNTERS))))
    assert (found["80/tcp"].connections, found["80/tcp"].refused) == (3, 0)
    assert (found["81/tcp"].connections, found["81/tcp"].refused) == (1, 1)
    assert found["80/tcp"].received > 3 * 4 * 40  # SYN, ACKs and FIN of each
    assert found["80/tcp"].sent > 3 * 4 * 40
    sandbox.call(lambda: nft_batch.change(ingress_update(ports, {"80/tcp": ports["80/tcp"]})))
    left = sandbox.call(lambda: read_counters("".join(map(nft.run, LIST_COUNTERS))))
    assert left.keys() == {"80/tcp"}
    before, after = found["80/tcp"], left["80/tcp"]
    assert (after.connections, after.refused) == (3, 0)
    # Nothing is lost; the connections' last acknowledgements may have come meanwhile.
    assert after.received >= before.received
    assert after.sent >= before.sent
