"""What the mesh leaves on a kernel with IPVS once it is removed: Docker's routing mesh, as it was."""

from tests.ipvs.machine import NODES, OURS, Machine
from tests.ipvs.test_beside_docker import REQUESTS, carried_by_ipvs
from tests.support.swarm import eventually

CLEANUP = (
    "docker run --rm --network host --cap-add SYS_ADMIN --cap-add NET_ADMIN "
    "-v /var/run/docker/netns:/var/run/docker/netns:rslave mesh:latest cleanup"
)


def test_a_removed_mesh_leaves_dockers_as_it_was(
    deployed: Machine, before: dict[str, dict[str, list[str]]]
) -> None:
    deployed.remove()
    assert deployed.tables() == []
    for node in NODES:
        assert deployed.dockers(node) == before[node]
        assert carried_by_ipvs(deployed, OURS, node) == REQUESTS


def test_cleanup_takes_out_what_a_power_failure_left(
    powered: Machine, before: dict[str, dict[str, list[str]]]
) -> None:
    """Killed and not started again: the rules no longer match, but they are there."""
    powered.deploy()
    sidecars = {node: powered.sidecar(node) for node in NODES}
    for node, id_ in sidecars.items():
        powered.docker("kill", "--signal", "STOP", id_, node=node)  # nothing of it can tidy up any more
    powered.docker("service", "rm", "mesh_sidecar")
    for node, id_ in sidecars.items():
        powered.docker("rm", "-f", id_, node=node, check=False)
    assert powered.tables()
    for node in NODES:
        powered.on(node, "sh", "-c", CLEANUP)
    assert powered.tables() == []
    eventually(lambda: carried_by_ipvs(powered, OURS) == REQUESTS, "Docker's IPVS serves")
    for node in NODES:
        assert powered.dockers(node) == before[node]
    powered.docker("stack", "rm", "mesh", check=False)
