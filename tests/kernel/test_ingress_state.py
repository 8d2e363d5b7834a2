"""What ports are to lead to: differences add up to the whole, and a node speaks for its own tasks only."""

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import Network, Node, Port, Protocol, ReturnPath, Service, Task, TaskState
from mesh.kernel.ingress_state import Ports, Published, as_published
from mesh.kernel.rulesets import PortTarget

INGRESS = Network("in", "ingress", ("10.0.0.0/24",), ingress=True)
ENTRY = "10.0.0.2"


def web(*tasks: tuple[str, str], port: int = 80, **labels: str) -> Service:
    found = tuple(Task(a, a, node, TaskState.RUNNING, {"in": a}) for a, node in tasks)
    named = {f"mesh.port.{port}.{key}": value for key, value in labels.items()}
    return Service("web", "web", ports=(Port(port, 8080),), tasks=found, labels=named)


def node(id_: str, *tasks: str, entries: tuple[str, ...] = (ENTRY,)) -> Node:
    return Node(id_, id_, "", return_path=ReturnPath("", "", entries, tasks))


def target(*addresses: str, masqueraded: bool = False, relayed: bool = False) -> PortTarget:
    return PortTarget(80, Protocol.TCP, 8080, Choice(addresses), masqueraded, relayed)


def test_a_service_comes_changes_and_goes() -> None:
    ports = Published()
    ports.set_service("web", web(("10.0.0.7", "n1")), INGRESS)
    assert ports.everything(ENTRY, {}) == Ports({"80/tcp": target("10.0.0.7")}, [])
    ports.set_service("web", web(("10.0.0.8", "n1")), INGRESS)
    assert ports.settle(ENTRY, {}) == (
        Ports({"80/tcp": target("10.0.0.7")}, []),
        Ports({"80/tcp": target("10.0.0.8")}, []),
    )
    assert ports.settle(ENTRY, {}) == (Ports({}, []), Ports({}, []))
    ports.set_service("web", None, INGRESS)
    assert ports.settle(ENTRY, {}) == (Ports({"80/tcp": target("10.0.0.8")}, []), Ports({}, []))


def test_the_clients_address_is_kept_where_the_tasks_own_node_says_that_answers_come_back() -> None:
    ports = Published()
    ports.set_service("web", web(("10.0.0.7", "n1"), ("10.0.0.8", "n2")), INGRESS)
    nodes = {"n1": node("n1", "10.0.0.7"), "n2": node("n2", "10.0.0.8", entries=("10.0.0.3",))}
    assert ports.everything(ENTRY, nodes).kept == ["10.0.0.7"]
    nodes["n2"] = node("n2", "10.0.0.8", "10.0.0.7")
    ports.heed_node("n2")
    assert ports.settle(ENTRY, nodes)[1].kept == ["10.0.0.8"]
    ports.set_service("web", web(("10.0.0.7", "n2")), INGRESS)  # the address is another node's task's now
    gone, new = ports.settle(ENTRY, nodes)
    assert (gone.kept, new.kept) == (["10.0.0.8"], [])
    assert ports.everything("", nodes).kept == []


def test_masquerading_by_label_and_dockers_own_port_mapping() -> None:
    ports = Published()
    ports.set_service("web", web(("10.0.0.7", "n1"), source_ip="masquerade"), INGRESS)
    found = ports.everything(ENTRY, {})
    assert found.targets == {"80/tcp": target("10.0.0.7", masqueraded=True)}
    assert as_published(found).targets["80/tcp"].target == 80


def test_relayed_ports_are_known_to_the_kernel_and_marked_as_such() -> None:
    ports = Published()
    ports.set_service("web", web(("10.0.0.7", "n1"), mode="proxy"), INGRESS)
    assert ports.everything(ENTRY, {}).targets == {"80/tcp": target("10.0.0.7", relayed=True)}
    ports.set_service("web", web(("10.0.0.7", "n1"), mode="kernel"), INGRESS)
    assert ports.settle(ENTRY, {})[1].targets == {"80/tcp": target("10.0.0.7")}


def test_a_port_that_two_services_claim_for_a_moment_goes_to_the_one_that_stays() -> None:
    ports = Published()
    ports.set_service("old", web(("10.0.0.7", "n1")), INGRESS)
    ports.set_service("new", web(("10.0.0.8", "n1")), INGRESS)
    ports.everything(ENTRY, {})
    ports.set_service("old", None, INGRESS)
    ports.settle(ENTRY, {})
    assert ports.everything(ENTRY, {}).targets == {"80/tcp": target("10.0.0.8")}


ADDRESSES = st.sampled_from([f"10.0.0.{n}" for n in range(5, 9)])
NODES = st.sampled_from(["n1", "n2"])
SERVICES = st.tuples(
    st.sampled_from(["a", "b"]),
    st.none() | st.dictionaries(ADDRESSES, NODES, max_size=3),
    st.sampled_from([80, 81]),
)
WORDS = st.tuples(NODES, st.sets(ADDRESSES), st.booleans())


@given(st.lists(st.one_of(SERVICES, WORDS)))
def test_differences_add_up_to_the_whole(steps: list[tuple[str, object, object]]) -> None:
    """Addresses are unique in a Swarm, except while one moves from a service to another."""
    ports, nodes = Published(), dict[str, Node]()
    targets, kept = dict[str, PortTarget](), set[str]()
    ports.everything(ENTRY, nodes)
    for name, what, more in steps:
        if name in ("a", "b"):
            tasks = None if what is None else web(*dict(what).items(), port=int(str(more)))  # type: ignore[call-overload]
            ports.set_service(name, tasks, INGRESS)
        else:
            assert isinstance(what, Collection)
            nodes[name] = node(name, *what, entries=(ENTRY,) if more else ())
            ports.heed_node(name)
        before, after = ports.settle(ENTRY, nodes)
        assert {key: targets[key] for key in before.targets} == before.targets
        assert kept.issuperset(before.kept)
        for key in before.targets:
            del targets[key]
        targets |= after.targets
        kept = (kept - set(before.kept)) | set(after.kept)
    whole = ports.everything(ENTRY, nodes)
    assert targets == whole.targets
    assert kept == set(whole.kept)
