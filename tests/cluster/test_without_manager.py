"""Every manager is gone: workers go on from what they know, corrected by what their own engines see."""

from tests.support.swarm import Swarm, eventually

WORKERS = ("swarm01", "swarm02")


def followed(swarm: Swarm, node: str) -> str:
    """The manager whose feed the node follows, "" if none."""
    manager: str = swarm.mesh(node, "status")["feed"]["following"]
    return manager


def test_workers_serve_on_and_still_notice_a_dead_task(swarm: Swarm) -> None:
    swarm.network("internal", "--subnet", "172.31.0.0/24")
    on_workers = ("--constraint", "node.role==worker")
    options = ("--network", "internal", "--publish", "80:8080", "--replicas", "2")
    swarm.service("nodejs", *options, *on_workers, "--placement-pref", "spread=node.id")
    swarm.service("asker", "--network", "internal", "--mode", "global", *on_workers)
    askers = {box.node: box for box in swarm.boxes("asker", WORKERS)}
    tasks = {box.node: box for box in swarm.boxes("nodejs", WORKERS)}
    both = sorted(task.addresses["internal"] for task in tasks.values())
    for asker in askers.values():
        eventually(lambda a=asker: a.dig("tasks.nodejs").data == both, "both tasks are named")  # type: ignore[misc]

    swarm.lab("kill", "swarm00")
    try:
        for node in WORKERS:
            eventually(lambda n=node: not followed(swarm, n), f"{node} is cut off")  # type: ignore[misc]
            assert askers[node].dig("tasks.nodejs").data == both
            assert askers[node].dig("nodejs").data
            eventually(lambda n=node: len(swarm.served_by(n, 4)) == 2, f"{node}'s port still balances")  # type: ignore[misc]
        swarm.docker("kill", tasks["swarm01"].id, node="swarm01")
        left = [tasks["swarm02"].addresses["internal"]]
        for node in WORKERS:
            asker = askers[node]
            what = f"{node} no longer names the dead task"
            eventually(lambda a=asker: a.dig("tasks.nodejs").data == left, what, 30)  # type: ignore[misc]
    finally:
        swarm.lab("start", "swarm00", limit=300)
    for node in WORKERS:
        eventually(lambda n=node: followed(swarm, n), f"{node}'s feed is back", 120)  # type: ignore[misc]
