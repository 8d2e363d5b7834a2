"""A node's word on keeping the client's address: believed while the node is up, the last one as a whole."""

from dataclasses import replace

from mesh.catalog.model import NO_RETURN_PATH, Node, ReturnPath
from mesh.catalog.snapshot import Change
from mesh.discovery.return_paths import ReturnPaths
from mesh.discovery.swarm import ClusterView

SAID = ReturnPath("10.0.0.2", "02:42:0a:00:00:02", ("10.0.0.2", "10.0.0.3"), ("10.0.0.7",))
NODES = {"n1": Node("n1", "swarm00", "10.10.10.60"), "n2": Node("n2", "swarm01", "10.10.10.61")}


def view(**states: str) -> ClusterView:
    nodes = {id_: replace(node, state=states.get(id_, "ready")) for id_, node in NODES.items()}
    return ClusterView(nodes, {}, {})


def test_a_word_changes_its_node_alone_and_only_once() -> None:
    book = ReturnPaths()
    book.lay_over(view())
    assert book.report("n1", SAID) == Change(nodes={"n1": replace(NODES["n1"], return_path=SAID)})
    assert book.report("n1", SAID) == Change()
    assert book.lay_over(view()).nodes == {"n1": replace(NODES["n1"], return_path=SAID), "n2": NODES["n2"]}


def test_a_node_takes_back_what_it_said() -> None:
    book = ReturnPaths()
    book.lay_over(view())
    book.report("n1", SAID)
    assert book.report("n1", NO_RETURN_PATH) == Change(nodes={"n1": NODES["n1"]})
    assert book.lay_over(view()) == view()


def test_nodes_that_are_down_or_unknown_are_not_believed() -> None:
    book = ReturnPaths()
    book.lay_over(view())
    book.report("n1", SAID)
    down = book.lay_over(view(n1="down"))
    assert down.nodes["n1"].return_path == NO_RETURN_PATH
    assert book.report("n1", SAID) == Change()
    assert book.report("stranger", SAID) == Change()
    assert book.lay_over(view()).nodes["n1"].return_path == NO_RETURN_PATH  # it has to speak again
    assert book.report("n1", SAID)


def test_a_new_manager_goes_on_from_what_was_known() -> None:
    book = ReturnPaths()
    book.begin({"n1": replace(NODES["n1"], return_path=SAID), "n2": NODES["n2"]})
    assert book.lay_over(view()).nodes["n1"].return_path == SAID


def test_whose_answers_go_where() -> None:
    assert SAID.leads("10.0.0.7", "10.0.0.3")
    assert not SAID.leads("10.0.0.8", "10.0.0.3")
    assert not SAID.leads("10.0.0.7", "10.0.0.4")
    assert not SAID.leads("10.0.0.7", "")
