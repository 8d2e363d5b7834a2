"""A task's container is destroyed: nothing names it any more, long before its replacement runs."""

from tests.support.swarm import NODES, Box, Swarm, eventually

RESTART_DELAY = 15  # seconds in which there is no replacement: what answers then is the survivor alone


def test_a_destroyed_task_is_out_of_dns_vip_and_port_before_its_replacement_is_up(swarm: Swarm) -> None:
    swarm.network("internal", "--subnet", "172.31.0.0/24")
    options = ("--network", "internal", "--publish", "80:8080", "--replicas", "2")
    swarm.service("nodejs", *options, "--restart-delay", f"{RESTART_DELAY}s")
    swarm.service("asker", "--network", "internal", "--mode", "global")
    dead, survivor = swarm.boxes("nodejs")
    askers = swarm.boxes("asker")
    for asker in askers:
        eventually(lambda a=asker: len(a.dig("tasks.nodejs").data) == 2, "both tasks are named")  # type: ignore[misc]

    swarm.docker("rm", "-f", dead.id, node=dead.node)

    left = [survivor.addresses["internal"]]
    for asker in askers:
        eventually(lambda a=asker: a.dig("tasks.nodejs").data == left, "the dead task is not named")  # type: ignore[misc]
    eventually(lambda: all_by(swarm, survivor), "every node's port reaches the survivor only")
    vip = askers[0].dig("nodejs").data[0]
    for asker in askers:
        eventually(lambda a=asker: vip_by(a, vip, survivor), "the VIP reaches the survivor only")  # type: ignore[misc]
    assert len(swarm.boxes("nodejs")) == 1, (
        "the replacement came before the test had looked; raise RESTART_DELAY"
    )

    swarm.settled("nodejs", 2)
    both = sorted(box.addresses["internal"] for box in swarm.boxes("nodejs"))
    for asker in askers:
        eventually(lambda a=asker: a.dig("tasks.nodejs").data == both, "the replacement is named")  # type: ignore[misc]


def all_by(swarm: Swarm, survivor: Box) -> bool:
    return all(swarm.served_by(node, 3) == {survivor.id[:12]: 3} for node in NODES)


def vip_by(asker: Box, vip: str, survivor: Box) -> bool:
    out = [asker.inside("curl", "-s", "-m", "3", f"http://{vip}:8080/", check=False) for _ in range(3)]
    return all(survivor.id[:12] in one for one in out)


def test_a_service_of_one_task_is_restored_on_another_node(swarm: Swarm) -> None:
    swarm.service("single", "--publish", "80:8080", "--constraint", "node.hostname!=swarm00")
    (before,) = swarm.boxes("single")
    eventually(lambda: swarm.get("swarm00"), "it answers")
    swarm.docker("node", "update", "--availability", "drain", before.node)
    try:
        others = [node for node in NODES if node != before.node]
        (after,) = eventually(lambda: swarm.boxes("single", others), "a new task on another node")
        swarm.settled("single", 1)
        eventually(lambda: swarm.served_by("swarm00", 3) == {after.id[:12]: 3}, "the new task answers")
    finally:
        swarm.docker("node", "update", "--availability", "active", before.node)
