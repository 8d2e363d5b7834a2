"""Nodes that lie about themselves: through the report, the manager's books, the merge and the snapshot to the
rules and names that come of it. A good node beside the liar has what is its own throughout.
"""

import json
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.catalog.entries import derived_mac
from mesh.catalog.model import Network, Node, ReturnPath
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.allocations import Allocations
from mesh.discovery.merge import Merger
from mesh.discovery.report import Report, decode_report, encode_report
from mesh.discovery.return_paths import ReturnPaths as ReturnPathBook
from mesh.discovery.swarm import ClusterView
from mesh.errors import DiscoveryError
from mesh.kernel.return_paths import ReturnPaths
from mesh.kernel.return_rules import Entry, return_rules
from mesh.net.netns import NamespaceWorker
from mesh.net.tasks import Tasks

INGRESS = Network("ingress", "ingress", ("10.0.0.0/24",), ingress=True)
NODES = {id_: Node(id_, f"name-of-{id_}", "") for id_ in ("good", "liar", "here")}
VIEW = ClusterView(NODES, {INGRESS.id: INGRESS}, {})
GOOD = Entry("10.0.0.2", derived_mac("10.0.0.2"))
OWN = Entry("10.0.0.4", derived_mac("10.0.0.4"))
GOOD_SAYS = ReturnPath(GOOD.address, GOOD.mac, (GOOD.address,), ("10.0.0.20",))


def sent(said: ReturnPath) -> ReturnPath | None:
    """As it arrives at a manager; None: it is refused as a whole."""
    try:
        return decode_report(encode_report(Report(return_path=said))).return_path
    except DiscoveryError:
        return None


class TestReturnPaths:
    """What a task answers through is `here`'s to decide."""

    def book(self, known: Allocations | None = None) -> ReturnPathBook:
        made = ReturnPathBook()
        made.lay_over(VIEW, known)
        return made

    def entries(self, book: ReturnPathBook) -> dict[str, Entry]:
        """As node `here` has them after the feed."""
        merger = Merger()
        merger.set_node("here")
        return self.believed(merger.set_cluster(book.lay_over(VIEW))[0])

    def believed(self, *changes: Change) -> dict[str, Entry]:
        worker = NamespaceWorker()
        try:
            paths = ReturnPaths(Tasks(lambda _name, error: pytest.fail(str(error))), worker, lambda: None)
            paths.own_entry(OWN)
            snapshot = Snapshot(this_node="here")
            for change in changes:
                old, snapshot = snapshot, snapshot.apply(change)
                paths.update(old, snapshot, change)
            found = {**paths.entries, "own": OWN}
            marks = paths.marks
            assert marks.keys() == {one.mac for one in found.values() if one.mac}
            assert len(set(marks.values())) == len(marks)
            for mac, gateway in paths.gateways.items():
                assert gateway in {one.address for one in found.values()}
                assert IPv4Address(gateway)
                assert mac in marks.values()
            return_rules("eth0", "10.0.0.30", marks)
            return found
        finally:
            worker.close()

    @pytest.mark.parametrize(
        "lie",
        [
            ReturnPath("10.0.0.3", GOOD.mac),
            ReturnPath(GOOD.address, GOOD.mac),
            ReturnPath(GOOD.address, "7e:00:00:00:00:01"),
            ReturnPath(GOOD.address),
            ReturnPath(OWN.address, OWN.mac),
            ReturnPath("10.0.0.3", OWN.mac),
            ReturnPath("x", GOOD.mac),
            ReturnPath("", GOOD.mac),
            ReturnPath("10.9.9.9", GOOD.mac),
            ReturnPath("10.0.0.1", derived_mac("10.0.0.1")),
            ReturnPath("10.0.0.255", derived_mac("10.0.0.255")),
        ],
    )
    @pytest.mark.parametrize("order", [("good", "liar"), ("liar", "good")])
    def test_the_rightful_owner_has_it(self, lie: ReturnPath, order: tuple[str, str]) -> None:
        """Whoever comes first: the engine knows where each node enters."""
        entries = {"good": GOOD.address, "here": OWN.address}
        book = self.book(Allocations(entries=entries))
        words = {"good": GOOD_SAYS, "liar": lie}
        for node in order:
            if (said := sent(words[node])) is not None:
                book.report(node, said)
        assert self.entries(book) == {"good": GOOD, "own": OWN}
        assert [one.file for one in book.problems()] == ["node name-of-liar"]
        assert sum(book.refused.values()) == 1
        assert book.lay_over(VIEW).nodes["good"].return_path == GOOD_SAYS

    @pytest.mark.parametrize("mac", [GOOD.mac, "7e:00:00:00:00:01"])
    def test_a_poisoned_view_harms_nobody(self, mac: str) -> None:
        """Of a saved file, or an older manager's feed: both claims come at once, or the lie later."""
        good = replace(NODES["good"], return_path=replace(GOOD_SAYS, mac=mac))
        for entry in ("x", "10.0.0.3", "", "300.1.1.1", OWN.address):
            liar = replace(NODES["liar"], return_path=ReturnPath(entry, mac))
            networks = {INGRESS.id: INGRESS}
            later = Change(networks=networks, nodes={"good": good}), Change(nodes={"liar": liar})
            kept = {"good": Entry(GOOD.address, mac), "own": OWN}
            assert self.believed(*later) == kept
            at_once = self.believed(Change(networks=networks, nodes={"good": good, "liar": liar}))
            assert mac != GOOD.mac or at_once == kept

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["liar", "good", "here"]),
                st.sampled_from(["", "x", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.1", "10.1.0.9"]),
                st.sampled_from(["", GOOD.mac, OWN.mac, derived_mac("10.0.0.3"), "7e:00:00:00:00:01", "m"]),
                st.lists(st.sampled_from(["10.0.0.2", "y", "10.0.0.300", "::1"]), max_size=3),
            ),
            max_size=6,
        )
    )
    def test_whatever_is_said_nothing_of_ours_fails(
        self, words: list[tuple[str, str, str, list[str]]]
    ) -> None:
        book = self.book()
        for node, entry, mac, more in words:
            raw = {"entry": entry, "mac": mac, "entries": more, "tasks": more}
            try:
                report = decode_report(json.dumps({"ending": {}, "return_path": raw}).encode())
            except DiscoveryError:
                continue
            book.report(node, report.return_path)
        self.entries(book)
