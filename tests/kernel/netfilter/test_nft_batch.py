"""Batches against libnftables in a real kernel: the same transactions leave the same tables; what is refused
changes nothing, says what it was, and does not disturb what follows."""

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.balance.hash_slots import NOBODY, Choice, SlotDraw
from mesh.catalog.model import Protocol
from mesh.errors import KernelError
from mesh.kernel.netfilter import nft, nft_batch
from mesh.kernel.netfilter.nfnetlink import batch
from mesh.kernel.netfilter.nft_batch import Batches
from mesh.kernel.netfilter.transaction import (
    Add,
    Delete,
    Elements,
    Lead,
    Operation,
    OperationKind,
    Put,
    Take,
    Transaction,
    What,
    as_text,
)
from mesh.kernel.return_rules import DELETE_RETURN, return_rules, return_update
from mesh.kernel.rulesets import (
    DELETE,
    NOT_ALIVE,
    HostPath,
    PortTarget,
    container_rules,
    host_rules,
    host_update,
    ingress_rules,
    ingress_update,
    vips_update,
)
from mesh.kernel.table import Tables
from mesh.net.netns import Namespace, NamespaceWorker
from tests.net.lab import Lab, inside, laboratory, needs_root

pytestmark = [pytest.mark.root, needs_root]

VIPS = Elements("mesh", "vips", OperationKind.ADDRESS, OperationKind.VERDICT)
EMPTY = Elements("mesh", "empty", OperationKind.ADDRESS)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


@pytest.fixture(scope="module")
def both(lab: Lab) -> tuple[Namespace, Namespace]:
    return lab.namespace("text"), lab.namespace("batch")


@pytest.fixture
def box(both: tuple[Namespace, Namespace]) -> Namespace:
    """With a container's table, in which no VIP is."""
    box, _ = both
    box.call(lambda: nft.run(container_rules({}, None)))
    return box


def ruleset(where: Namespace) -> tuple[list[str], list[str]]:
    """As nft reads it back: as JSON without handles, which count what ever was, and every word of the text,
    which knows types that the JSON does not. Elements have no order."""
    if "table ip mesh\n" in where.call(lambda: nft.run("list tables\n")):
        where.call(lambda: nft.run(NOT_ALIVE))  # its elements expire by the clock
    listed = json.loads(inside(where, "nft", "-j", "list", "ruleset"))["nftables"]
    things = (_told(kind, body) for entry in listed for kind, body in entry.items() if kind != "metainfo")
    return sorted(things), sorted(inside(where, "nft", "list", "ruleset").replace(",", " ").split())


def _told(kind: str, body: dict[str, Any]) -> str:
    body.pop("handle", None)
    if isinstance(body.get("elem"), list):
        body["elem"].sort(key=json.dumps)
    return json.dumps([kind, body])


# --- the same by both ways ----------------------------------------------------------------------------------

ADDRESSES = [f"10.9.0.{number}" for number in range(1, 7)]
choices = st.builds(
    Choice, st.lists(st.sampled_from(ADDRESSES), max_size=5).map(tuple), st.sampled_from(SlotDraw)
)
vips = st.dictionaries(st.sampled_from(["10.1.0.1", "10.1.0.2"]), choices)
kept = st.sets(st.sampled_from(ADDRESSES), max_size=3)
redirected = st.dictionaries(st.integers(1, 3), st.integers(1, 65_535))
marks = st.dictionaries(
    st.sampled_from(["02:42:0a:00:00:05", "02:42:0a:00:00:06"]), st.integers(1, 2**32 - 1)
)


@st.composite
def targets(draw: st.DrawFn) -> dict[str, PortTarget]:
    def one(number: int, protocol: Protocol) -> PortTarget:
        target, has = draw(st.integers(1, 65_535)), draw(choices)
        return PortTarget(number, protocol, target, has, draw(st.booleans()), draw(st.booleans()))

    ports = draw(st.sets(st.sampled_from([(80, Protocol.TCP), (80, Protocol.UDP), (9, Protocol.SCTP)])))
    return {f"{number}/{protocol}": one(number, protocol) for number, protocol in ports}


walks = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def follow(
    namespaces: tuple[Namespace, Namespace], loaded: str, transactions: list[Transaction], ends: str
) -> None:
    """The same changes of the same table: as text in one namespace, as batches in the other."""
    by_text, by_batch = namespaces
    for where in namespaces:
        where.call(lambda: nft.run(loaded))
    for transaction in transactions:
        by_text.call(partial(nft.run, as_text(transaction)))
        by_batch.call(partial(nft_batch.change, transaction))
        assert ruleset(by_text) == ruleset(by_batch)
    for where in namespaces:
        where.call(lambda: nft.run(ends))


@walks
@given(st.lists(vips, min_size=2, max_size=4))
def test_virtual_ips_by_both_ways(both: tuple[Namespace, Namespace], states: list[dict[str, Choice]]) -> None:
    transactions = [vips_update(before, after) for before, after in pairwise(states)]
    follow(both, container_rules(states[0], None), transactions, DELETE)


@walks
@given(st.lists(st.tuples(targets(), kept), min_size=2, max_size=4))
def test_published_ports_by_both_ways(
    both: tuple[Namespace, Namespace], states: list[tuple[dict[str, PortTarget], set[str]]]
) -> None:
    transactions = [
        ingress_update(before, after, kept_before, kept)
        for (before, kept_before), (after, kept) in pairwise(states)
    ]
    ports, kept = states[0]
    follow(both, ingress_rules(ports, "172.18.0.2", "eth0", kept=kept), transactions, DELETE)


@walks
@given(st.lists(st.tuples(targets(), redirected), min_size=2, max_size=4))
def test_the_hosts_ports_by_both_ways(
    both: tuple[Namespace, Namespace], states: list[tuple[dict[str, PortTarget], dict[int, int]]]
) -> None:
    transactions = [
        host_update(before, after, led_before, led) for (before, led_before), (after, led) in pairwise(states)
    ]
    follow(both, host_rules(HostPath("172.18.0.2"), *states[0]), transactions, DELETE)


@walks
@given(st.lists(marks, min_size=2, max_size=4))
def test_entries_by_both_ways(both: tuple[Namespace, Namespace], states: list[dict[str, int]]) -> None:
    transactions = [return_update(before, after) for before, after in pairwise(states)]
    follow(both, return_rules("eth0", "10.0.0.9", states[0]), transactions, DELETE_RETURN)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (Take(VIPS, ("10.1.0.9",)), "No such file or directory: delete element ip mesh vips { 10.1.0.9 }"),
        (Put(VIPS, (("10.1.0.1", "goto two"),)), "File exists: add element ip mesh vips"),
        (Delete(What.CHAIN, "mesh", "one"), "Device or resource busy: delete chain ip mesh one"),
        (Delete(What.SLOTS, "mesh", "none"), "No such file or directory: delete map ip mesh none"),
        (Lead("mesh", "refusal", "10.9.0.1"), "not supported"),  # a filter chain leads there
    ],
)
def test_the_refused_is_named_and_changes_nothing(box: Namespace, refused: Operation, reason: str) -> None:
    one, two = Add(What.CHAIN, "mesh", "one"), Add(What.CHAIN, "mesh", "two")
    kept = box.call(Batches)
    kept.change((one, two, Put(VIPS, (("10.1.0.1", "goto one"),))))
    before = ruleset(box)
    right = Add(What.CHAIN, "mesh", "three")
    for transaction in ((right, refused), (refused, right), (right, refused, refused)):
        with pytest.raises(KernelError, match=re.escape(reason)):
            kept.change(transaction)
        assert ruleset(box) == before
    kept.change((right,))  # whose answer is its own
    assert ruleset(box) != before
    kept.close()


def test_a_table_that_was_flushed_is_an_error_until_it_is_loaded_again(box: Namespace) -> None:
    change = vips_update({"10.1.0.1": NOBODY}, {"10.1.0.1": Choice(("10.9.0.1", "10.9.0.2"))})
    kept = box.call(Batches)
    box.call(lambda: nft.run("flush ruleset\n"))
    with pytest.raises(KernelError, match="No such file or directory: delete element ip mesh empty"):
        kept.change(change)
    box.call(lambda: nft.run(container_rules({"10.1.0.1": NOBODY}, None)))
    assert kept.change(change)
    assert "10.9.0.2" in inside(box, "nft", "list", "ruleset")
    kept.close()


def test_more_refusals_than_can_be_read_do_not_pass_for_later_answers(box: Namespace) -> None:
    kept = box.call(Batches)
    missing = tuple(Take(VIPS, (f"10.1.{number >> 8}.{number & 255}",)) for number in range(1500))
    for _ in range(2):
        with pytest.raises(KernelError):
            kept.change(missing)
    assert kept.change((Add(What.CHAIN, "mesh", "one"),))
    kept.close()


def test_no_change_asks_nothing_of_the_kernel(lab: Lab) -> None:
    kept = lab.namespace("bare").call(Batches)  # with no table at all
    assert kept.change(())
    kept.close()


async def test_what_is_too_large_for_a_batch_goes_as_text(box: Namespace) -> None:
    addresses = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(8192)]
    large = (Put(EMPTY, tuple((address, "") for address in addresses)),)
    assert len(batch(large)) > nft_batch.BATCH_BYTES
    before = ruleset(box)
    kept = box.call(Batches)
    assert not kept.change(large)
    kept.close()
    assert ruleset(box) == before
    worker = NamespaceWorker()
    table = await Tables(worker).open(box.path)
    await table.change(large)
    await table.close()
    worker.close()
    listed = json.loads(inside(box, "nft", "-j", "list", "set", "ip", "mesh", "empty"))
    assert sorted(listed["nftables"][1]["set"]["elem"]) == sorted(addresses)
