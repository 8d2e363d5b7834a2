"""Whether another sidecar comes: the service is still there, and the node takes tasks."""

from mesh.catalog.model import Node, Service
from mesh.catalog.snapshot import Change, Snapshot
from sidecar.wiring.successor import has_successor


def cluster(availability: str = "active") -> Snapshot:
    known = Change(
        nodes={"n1": Node("n1", "swarm00", "", availability=availability), "n2": Node("n2", "swarm01", "")},
        services={"s1": Service("s1", "mesh_sidecar")},
    )
    return Snapshot(this_node="n1").apply(known)


def test_an_update_or_a_restart_has_one() -> None:
    assert has_successor(cluster(), "s1")
    assert has_successor(cluster("pause"), "s1")


def test_a_removal_a_drain_and_a_sidecar_run_by_hand_have_none() -> None:
    assert not has_successor(cluster().apply(Change(services={"s1": None})), "s1")
    assert not has_successor(cluster("drain"), "s1")
    assert not has_successor(cluster(), "")
    assert not has_successor(Snapshot(), "s1")
