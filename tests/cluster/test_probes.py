"""Active probes: a task gets connections from when it listens until it does not, on every node."""

from tests.support.load import Load
from tests.support.swarm import FRONT, LAB, NODES, Swarm, eventually

PROBED = ("--label", "mesh.port.80.health=http:/", "--label", "mesh.port.80.health_interval=1s")


def test_a_task_that_listens_late_is_not_sent_connections_before(swarm: Swarm) -> None:
    swarm.service("web", "--publish", "80:8080", "--replicas", "1", "--env", "START_DELAY=4", *PROBED)
    for node in NODES:
        eventually(lambda n=node: swarm.get(n), f"{node} answers")  # type: ignore[misc]
    load = Load("from outside", [*LAB, "client", "--"], 20, [f"{FRONT[node]}:80" for node in NODES])
    try:
        swarm.scale("web", 4)
        everyone = {box.id[:12] for box in swarm.boxes("web")}
        for one in everyone:
            load.more(1, lambda ended, one=one: ended.by == one)  # type: ignore[misc]
        load.stop()
    finally:
        load.kill()
    assert not load.failures(), str(load)


def test_a_task_that_hangs_is_left_by_ports_names_and_virtual_ips(swarm: Swarm) -> None:
    """Frozen, not dead: Docker sees nothing wrong."""
    swarm.network("internal")
    placed = (
        "--network",
        "internal",
        "--publish",
        "80:8080",
        "--replicas",
        "2",
        "--placement-pref",
        "spread=node.id",
    )
    swarm.service("web", *placed, *PROBED)
    swarm.service("asker", "--network", "internal", "--constraint", "node.hostname==swarm00")
    (asker,) = swarm.boxes("asker")
    victim, other = swarm.boxes("web")
    eventually(lambda: len(asker.dig("tasks.web").data) == 2, "both tasks are named")
    swarm.docker("pause", victim.id, node=victim.node)
    try:
        left = [other.addresses["internal"]]
        eventually(lambda: asker.dig("tasks.web").data == left, "it is not named any more")
        for node in NODES:
            served = {other.id[:12]: 4}
            eventually(lambda n=node, s=served: swarm.served_by(n, 4) == s, f"{node} leaves it alone")  # type: ignore[misc]
        problems = swarm.mesh(victim.node, "status")["problems"]
        assert any("does not pass its probe" in one for one in problems), problems
    finally:
        swarm.docker("unpause", victim.id, node=victim.node)
    eventually(lambda: len(asker.dig("tasks.web").data) == 2, "it is back")
