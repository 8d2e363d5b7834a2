"""A node's word on keeping the client's address: believed while the node is up, the last one as a whole."""

from dataclasses import replace

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import NO_RETURN_PATH, Network, Node, ReturnPath, Service, Task, TaskState
from mesh.catalog.snapshot import Change
from mesh.discovery.allocations import Allocations
from mesh.discovery.return_path_overlay import ReturnPathOverlay

SAID = ReturnPath("10.0.0.2", "02:42:0a:00:00:02", ("10.0.0.2", "10.0.0.3"), ("10.0.0.7",))
NODES = {"n1": Node("n1", "swarm00", "10.10.10.60"), "n2": Node("n2", "swarm01", "10.10.10.61")}


def view(**states: str) -> ClusterView:
    nodes = {id_: replace(node, state=states.get(id_, "ready")) for id_, node in NODES.items()}
    return ClusterView(nodes, {}, {})


def test_a_word_changes_its_node_alone_and_only_once() -> None:
    book = ReturnPathOverlay()
    book.lay_over(view())
    assert book.report("n1", SAID) == Change(nodes={"n1": replace(NODES["n1"], return_path=SAID)})
    assert book.report("n1", SAID) == Change()
    assert book.lay_over(view()).nodes == {"n1": replace(NODES["n1"], return_path=SAID), "n2": NODES["n2"]}


def test_a_node_takes_back_what_it_said() -> None:
    book = ReturnPathOverlay()
    book.lay_over(view())
    book.report("n1", SAID)
    assert book.report("n1", NO_RETURN_PATH) == Change(nodes={"n1": NODES["n1"]})
    assert book.lay_over(view()) == view()


def test_nodes_that_are_down_or_unknown_are_not_believed() -> None:
    book = ReturnPathOverlay()
    book.lay_over(view())
    book.report("n1", SAID)
    down = book.lay_over(view(n1="down"))
    assert down.nodes["n1"].return_path == NO_RETURN_PATH
    assert book.report("n1", SAID) == Change()
    assert book.report("stranger", SAID) == Change()
    assert book.lay_over(view()).nodes["n1"].return_path == NO_RETURN_PATH  # it has to speak again
    assert book.report("n1", SAID)


def test_a_new_manager_goes_on_from_what_was_known() -> None:
    book = ReturnPathOverlay()
    book.begin({"n1": replace(NODES["n1"], return_path=SAID), "n2": NODES["n2"]})
    assert book.lay_over(view()).nodes["n1"].return_path == SAID


INGRESS = Network("in", "ingress", ("10.0.0.0/24",), ingress=True)
OTHERS = ReturnPath("10.0.0.3", "02:42:0a:00:00:02", ("10.0.0.3",), ("10.0.0.8",))  # with the MAC of n1's


class TestBelieving:
    def book(self, known: Allocations | None = None) -> ReturnPathOverlay:
        made = ReturnPathOverlay()
        made.lay_over(replace(view(), networks={"in": INGRESS}), known)
        return made

    def shown(self, book: ReturnPathOverlay, node: str) -> ReturnPath:
        return book.lay_over(replace(view(), networks={"in": INGRESS})).nodes[node].return_path

    def test_the_mac_of_another_entry_is_refused_whoever_comes_first(self) -> None:
        for order in (("n1", "n2"), ("n2", "n1")):
            book, said = self.book(), {"n1": SAID, "n2": OTHERS}
            for node in order:
                book.report(node, said[node])
            assert self.shown(book, "n1") == SAID
            assert self.shown(book, "n2") == ReturnPath("", "", ("10.0.0.3",), ("10.0.0.8",))
            (problem,) = book.problems()
            assert (problem.file, "02:42:0a:00:00:02" in problem.message) == ("node swarm01", True)
            assert book.refused == {"address": 0, "mac": 1, "taken": 0}

    def test_what_the_engine_knows_counts(self) -> None:
        lie = replace(SAID, entries=(), tasks=())
        book = self.book(Allocations(entries={"n1": "10.0.0.2"}))
        assert book.report("n2", lie) == Change()
        assert book.report("n1", SAID)
        assert book.refused["address"] == 1
        late = self.book()
        late.report("n2", lie)
        assert self.shown(late, "n2") == lie, "nobody knows better"
        late.lay_over(replace(view(), networks={"in": INGRESS}), Allocations(entries={"n1": "10.0.0.2"}))
        assert self.shown(late, "n2") == NO_RETURN_PATH
        assert late.report("n1", SAID)

    def test_what_is_taken_back_is_free_for_others(self) -> None:
        own = {"n1": ReturnPath("10.0.0.2", "7e:00:00:00:00:01"), "n2": ReturnPath("10.0.0.2")}
        book = self.book()
        book.report("n1", own["n1"])
        assert book.report("n2", own["n2"]) == Change()
        change = book.report("n1", NO_RETURN_PATH)
        assert change.nodes["n1"] == NODES["n1"]
        assert change.nodes["n2"] == replace(NODES["n2"], return_path=own["n2"])
        assert not list(book.problems())

    def test_what_is_no_address_is_left_out(self) -> None:
        book = self.book()
        book.report("n1", replace(SAID, entries=("x", "10.0.0.3", "10.9.9.9"), tasks=("", "10.0.0.7")))
        assert self.shown(book, "n1") == replace(SAID, entries=("10.0.0.3",), tasks=("10.0.0.7",))

    def test_addresses_of_tasks_are_no_entries(self) -> None:
        task = Task("t1", "web.1.t1", "n1", TaskState.RUNNING, {"in": "10.0.0.2"})
        service = Service("s", "web", tasks=(task,))
        book = ReturnPathOverlay()
        book.lay_over(replace(view(), networks={"in": INGRESS}, services={"s": service}))
        book.report("n1", SAID)
        assert book.refused["address"] == 1

    def test_a_poisoned_view_is_judged_again(self) -> None:
        book = ReturnPathOverlay()
        book.begin(
            {id_: replace(NODES[id_], return_path=said) for id_, said in (("n1", SAID), ("n2", OTHERS))}
        )
        assert self.shown(book, "n1") == SAID
        assert self.shown(book, "n2").entry == ""


def test_whose_answers_go_where() -> None:
    assert SAID.leads("10.0.0.7", "10.0.0.3")
    assert not SAID.leads("10.0.0.8", "10.0.0.3")
    assert not SAID.leads("10.0.0.7", "10.0.0.4")
    assert not SAID.leads("10.0.0.7", "")
