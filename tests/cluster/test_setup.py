"""The cluster changes shape under the sidecars: promote, demote, drain, activate. They follow."""

from typing import Any

from tests.support.swarm import NODES, Swarm, eventually


def takes_its_part(swarm: Swarm, node: str, role: str) -> bool:
    """A manager's sidecar serves the feed, a worker's follows one."""
    status: dict[str, Any] = swarm.mesh(node, "status")
    feed = status["feed"] or {}
    part = feed["serving"] if role == "manager" else bool(feed["following"])
    return bool(status["role"] == role and status["source"]["connected"] and part)


def roles_are(swarm: Swarm, **roles: str) -> None:
    for node, role in roles.items():
        eventually(lambda n=node, r=role: takes_its_part(swarm, n, r), f"{node} is a {role}", 60)  # type: ignore[misc]


def test_sidecars_follow_promotion_and_demotion(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--replicas", "3")
    roles_are(swarm, swarm00="manager", swarm01="worker", swarm02="worker")
    try:
        swarm.promote("swarm01")
        swarm.promote("swarm02")
        roles_are(swarm, swarm00="manager", swarm01="manager", swarm02="manager")
        swarm.demote("swarm02")
        roles_are(swarm, swarm01="manager", swarm02="worker")
        swarm.scale("nodejs", 2)
        tasks = {box.id[:12] for box in swarm.boxes("nodejs")}
        for node in NODES:
            eventually(lambda n=node: set(swarm.served_by(n, 4)) == tasks, f"{node} knows both tasks")  # type: ignore[misc]
    finally:
        swarm.demote("swarm02")
        swarm.demote("swarm01")
    roles_are(swarm, swarm00="manager", swarm01="worker", swarm02="worker")


def test_a_drained_node_is_left_by_its_tasks_and_by_every_answer(swarm: Swarm) -> None:
    swarm.network("internal", "--subnet", "172.31.0.0/24")
    options = ("--network", "internal", "--publish", "80:8080", "--replicas", "3")
    swarm.service("nodejs", *options, "--placement-pref", "spread=node.id")
    swarm.service("asker", "--network", "internal", "--constraint", "node.hostname==swarm00")
    (asker,) = swarm.boxes("asker")
    on_drained = {box.addresses["internal"] for box in swarm.boxes("nodejs", ["swarm02"])}
    assert on_drained
    eventually(lambda: len(asker.dig("tasks.nodejs").data) == 3, "three tasks are named")
    try:
        swarm.docker("node", "update", "--availability", "drain", "swarm02")
        eventually(lambda: not on_drained & set(asker.dig("tasks.nodejs").data), "none on swarm02 is named")
        eventually(lambda: not swarm.boxes("nodejs", ["swarm02"]), "no task runs on swarm02")
        swarm.settled("nodejs", 3)
        eventually(lambda: len(asker.dig("tasks.nodejs").data) == 3, "the replacements are named")
        tasks = {box.id[:12] for box in swarm.boxes("nodejs")}
        eventually(lambda: set(swarm.served_by("swarm01", 6)) == tasks, "the port reaches the replacements")
    finally:
        swarm.docker("node", "update", "--availability", "active", "swarm02")
    eventually(lambda: swarm.ready("swarm02"), "swarm02's sidecar is back", 90)
    swarm.docker("service", "update", "--detach", "--force", "nodejs")
    eventually(lambda: swarm.boxes("nodejs", ["swarm02"]), "tasks return to swarm02", 120)

    def addresses() -> list[str]:
        return sorted(box.addresses["internal"] for box in swarm.boxes("nodejs"))

    # The update goes on meanwhile, a task at a time: at its end both agree, and on three.
    what = "the answer is exactly the running tasks"
    eventually(lambda: len(addresses()) == 3 and asker.dig("tasks.nodejs").data == addresses(), what)
