"""Signs laid over Swarm's view: what they do, whom they may concern, how they end; and their laws."""

from collections import Counter
from collections.abc import Mapping
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.diff import changed
from mesh.catalog.model import Node, Service, Task, TaskState
from mesh.catalog.snapshot import Change
from mesh.discovery import stopping_overlay as signs_module
from mesh.discovery.stopping_overlay import KEPT_SECONDS, SERVES_OR_WILL, StoppingOverlay

RUNNING, LEAVING, STARTING = TaskState.RUNNING, TaskState.LEAVING, TaskState.STARTING


def view(*tasks: Task, nodes: tuple[str, ...] = ("n1", "n2"), service: str = "web") -> ClusterView:
    return ClusterView(
        {id_: Node(id_, id_, "") for id_ in nodes}, {}, {service: Service(service, service, tasks=tasks)}
    )


def task(id_: str, node: str = "n1", state: TaskState = RUNNING) -> Task:
    return Task(id_, f"web.1.{id_}", node, state)


class Book:
    """Signs, and the view that their changes have made."""

    def __init__(self, *tasks: Task) -> None:
        self.signs = StoppingOverlay()
        self.told: dict[str, Service] = {}
        self.look(view(*tasks))

    def look(self, found: ClusterView) -> None:
        self.told = dict(self.signs.lay_over(found).services)

    def take(self, change: Change) -> Change:
        for id_, one in change.services.items():
            assert one is not None
            assert one != self.told[id_]
            self.told[id_] = one
        return change

    def report(self, node: str, *tasks: str, now: float = 0.0, service: str = "web") -> Change:
        return self.take(self.signs.report(node, dict.fromkeys(tasks, service), now))

    @property
    def states(self) -> Mapping[str, TaskState]:
        return {one.id: one.state for one in self.told["web"].tasks}


class TestSigns:
    def test_a_task_leaves_when_its_node_says_so(self) -> None:
        book = Book(task("t1"), task("t2"))
        change = book.report("n1", "t1")
        assert book.states == {"t1": LEAVING, "t2": RUNNING}
        assert set(change.services) == {"web"}
        assert book.signs.results == Counter({"taken": 1})

    def test_one_that_fails_its_probe_is_unwell_until_it_ends_or_is_well_again(self) -> None:
        book, both = Book(task("t1"), task("t2")), {"t1": "web", "t2": "web"}
        book.take(book.signs.report("n1", both, 0.0, frozenset({"t1", "foreign"})))
        assert book.states == {"t1": TaskState.UNWELL, "t2": LEAVING}
        book.look(view(task("t1"), task("t2")))
        assert book.states == {"t1": TaskState.UNWELL, "t2": LEAVING}
        assert book.take(book.signs.report("n1", both, 1.0))
        assert book.states == {"t1": LEAVING, "t2": LEAVING}
        book.report("n1")
        assert book.states == {"t1": RUNNING, "t2": RUNNING}

    def test_the_same_again_changes_nothing(self) -> None:
        book = Book(task("t1"))
        book.report("n1", "t1")
        assert not book.report("n1", "t1")
        assert book.signs.results["taken"] == 1

    def test_one_that_is_still_starting(self) -> None:
        book = Book(task("t1", state=STARTING))
        book.report("n1", "t1")
        assert book.states == {"t1": LEAVING}
        book.look(view(task("t1", state=RUNNING)))  # a status that was under way when it was killed
        assert book.states == {"t1": LEAVING}

    def test_one_that_is_not_listed_yet(self) -> None:
        book = Book()
        assert not book.report("n1", "t1")
        book.look(view(task("t1")))
        assert book.states == {"t1": LEAVING}
        assert book.signs.results["unknown"] == 1

    def test_one_that_is_listed_without_its_node(self) -> None:
        book = Book(task("t1", node="", state=STARTING))
        book.report("n1", "t1")
        book.look(view(task("t1")))
        assert book.states == {"t1": LEAVING}

    def test_a_poll_that_is_late_does_not_bring_it_back(self) -> None:
        book = Book(task("t1"), task("t2"))
        book.report("n1", "t1")
        book.look(view(task("t1"), task("t2"), task("t3")))
        assert book.states == {"t1": LEAVING, "t2": RUNNING, "t3": RUNNING}

    def test_when_swarm_has_caught_up_the_view_is_its_own(self) -> None:
        book = Book(task("t1"), task("t2"))
        book.report("n1", "t1", "t2")
        caught_up = view(task("t1", state=LEAVING))
        assert book.signs.lay_over(caught_up) is caught_up

    def test_without_signs_the_view_is_the_same_object(self) -> None:
        found = view(task("t1"))
        assert StoppingOverlay().lay_over(found) is found


class TestWhoMaySay:
    def test_another_nodes_task_is_refused(self) -> None:
        book = Book(task("t1", "n2"))
        assert not book.report("n1", "t1")
        assert book.states == {"t1": RUNNING}
        assert book.signs.results == Counter({"foreign": 1})

    def test_one_that_turns_out_to_be_another_nodes_has_no_effect(self) -> None:
        book = Book()
        book.report("n1", "t1")
        book.look(view(task("t1", "n2")))
        assert book.states == {"t1": RUNNING}

    def test_the_service_has_to_be_right(self) -> None:
        book = Book(task("t1"), task("t2"))
        book.report("n1", "t1", service="db")
        book.report("n1", "t1", service="db")
        book.report("n2", "t9")
        assert book.states == {"t1": RUNNING, "t2": RUNNING}

    def test_a_node_that_is_gone_is_not_heard_any_more(self) -> None:
        book = Book(task("t1"))
        book.report("n1", "t1")
        book.look(view(task("t1"), nodes=("n2",)))
        book.look(view(task("t1")))
        assert book.states == {"t1": RUNNING}

    def test_more_than_can_be_kept_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(signs_module, "KEPT_MAX", 2)
        book = Book(task("t1"), task("t2"), task("t3", "n2"))
        book.report("n1", "t1")
        book.report("n2", "t3", "t4")
        assert book.states == {"t1": LEAVING, "t2": RUNNING, "t3": LEAVING}
        assert book.signs.results["excess"] == 1
        book.report("n2")
        book.report("n1", "t1", "t2")
        assert book.states == {"t1": LEAVING, "t2": LEAVING, "t3": RUNNING}


class TestTheEnd:
    def test_a_node_takes_it_back(self) -> None:
        book = Book(task("t1"), task("t2"))
        book.report("n1", "t1", "t2")
        change = book.report("n1", "t2")
        assert book.states == {"t1": RUNNING, "t2": LEAVING}
        assert change.services["web"] is not None
        assert book.signs.results["withdrawn"] == 1

    def test_silence(self) -> None:
        book = Book(task("t1"), task("t2", "n2"))
        book.report("n1", "t1", now=0.0)
        book.report("n2", "t2", now=5.0)
        assert not book.signs.expire(KEPT_SECONDS - 0.1)
        book.take(book.signs.expire(KEPT_SECONDS))
        assert book.states == {"t1": RUNNING, "t2": LEAVING}
        assert book.signs.results["expired"] == 1

    def test_a_word_of_the_node_keeps_it(self) -> None:
        book = Book(task("t1"))
        book.report("n1", "t1", now=0.0)
        book.report("n1", "t1", now=KEPT_SECONDS)
        assert not book.signs.expire(KEPT_SECONDS + 1)

    def test_what_swarm_has_confirmed_is_not_counted_as_taken_back(self) -> None:
        book = Book(task("t1"))
        book.report("n1", "t1")
        book.look(view())
        book.report("n1")
        assert book.signs.results == Counter({"taken": 1})

    def test_no_manager_any_more(self) -> None:
        book = Book(task("t1"))
        book.report("n1", "t1")
        book.signs.clear()
        found = view(task("t1"))
        assert book.signs.lay_over(found) is found


# --- laws ---------------------------------------------------------------------------------------------------

NODES, TASKS = ("n1", "n2", "n3"), ("t1", "t2", "t3", "t4")

tasks = st.lists(
    st.builds(task, st.sampled_from(TASKS), st.sampled_from(NODES), st.sampled_from(TaskState)),
    unique_by=lambda one: one.id,
)
views = tasks.map(lambda found: view(*found, nodes=NODES))
# Of views that follow each other: a task stays on its node for as long as it is.
HOMES = dict(zip(TASKS, ("n1", "n2", "n3", "n1"), strict=True))
later_views = tasks.map(
    lambda found: view(*(task(one.id, HOMES[one.id], one.state) for one in found), nodes=NODES)
)
reports = st.dictionaries(
    st.sampled_from(NODES), st.dictionaries(st.sampled_from(TASKS), st.sampled_from(("web", "db")))
)


def outcome(found: ClusterView, said: Mapping[str, Mapping[str, str]]) -> ClusterView:
    """From scratch: the reports first."""
    signs = StoppingOverlay()
    for node, one in said.items():
        signs.report(node, one, 0.0)
    return signs.lay_over(found)


@given(views, reports)
def test_signs_never_add(found: ClusterView, said: Mapping[str, Mapping[str, str]]) -> None:
    now = outcome(found, said)
    assert (now.nodes, now.networks, now.services.keys()) == (
        found.nodes,
        found.networks,
        found.services.keys(),
    )
    for old, new in zip(found.services["web"].tasks, now.services["web"].tasks, strict=True):
        ending = old.state in SERVES_OR_WILL and said.get(old.node, {}).get(old.id) == "web"
        assert new == (task(old.id, old.node, LEAVING) if ending else old)


@given(views, reports, st.integers(0, 3))
def test_the_view_and_the_reports_commute(
    found: ClusterView, said: Mapping[str, Mapping[str, str]], place: int
) -> None:
    """Whenever the view comes, and whoever reports first; and the changes add up to it."""
    for order in permutations(said):
        signs, told = StoppingOverlay(), dict[str, Service]()
        for number, node in enumerate(order):
            if number == place:
                told = dict(signs.lay_over(found).services)
            told.update(
                {id_: one for id_, one in signs.report(node, said[node], 0.0).services.items() if one}
            )
        if place >= len(order):
            told = dict(signs.lay_over(found).services)
        assert told == outcome(found, said).services


@given(later_views, st.lists(st.one_of(later_views, st.tuples(st.sampled_from(NODES), reports)), max_size=6))
def test_only_the_last_word_counts(first: ClusterView, history: list[object]) -> None:
    signs, last, said = StoppingOverlay(), first, dict[str, Mapping[str, str]]()
    told = dict(signs.lay_over(first).services)
    for step in history:
        if isinstance(step, ClusterView):
            last, told = step, dict(signs.lay_over(step).services)
        else:
            node, one = step[0], step[1].get(step[0], {})  # type: ignore[index]
            change = signs.report(node, one, 0.0)
            assert (
                not changed(told, {**told, **change.services}).keys() ^ change.services.keys()
            )  # no idle ones
            told.update({id_: new for id_, new in change.services.items() if new})
            said[node] = one
    assert told == outcome(last, said).services


@given(views, reports)
def test_signs_never_outlive_their_nodes_word(
    found: ClusterView, said: Mapping[str, Mapping[str, str]]
) -> None:
    signs = StoppingOverlay()
    for node, one in said.items():
        signs.report(node, one, 0.0)
    told = dict(signs.lay_over(found).services)
    told.update({id_: one for id_, one in signs.expire(KEPT_SECONDS).services.items() if one})
    assert told == found.services
    assert signs.lay_over(found) is found
