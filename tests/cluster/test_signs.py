"""The end of a task is known on other nodes by its own node's word, not by a manager's next look."""

import re

from tests.support.swarm import FRONT, Box, Swarm, eventually


def signs(swarm: Swarm, result: str) -> int:
    """`mesh_signs_total` of the manager."""
    text = swarm.client("curl", "-s", f"http://{FRONT['swarm00']}:9180/metrics")
    found = re.search(rf'mesh_signs_total\{{result="{result}"\}} (\d+)', text)
    assert found, f"no mesh_signs_total for {result} in:\n{text}"
    return int(found[1])


def two_and_an_asker(swarm: Swarm, *options: str) -> tuple[Box, Box, Box]:
    """Two tasks of `web` on one worker, both named to a container on the other.

    Their process leaves every signal that it may ignore to the kernel, which spares a namespace's first.
    """
    swarm.network("internal", "--subnet", "172.34.0.0/24")
    on = "--network", "internal", "--constraint"
    deaf = "--entrypoint", "sleep", "--replicas", "2"
    swarm.service("web", *on, "node.hostname==swarm01", *deaf, *options, command=["infinity"])
    swarm.service("asker", *on, "node.hostname==swarm02")
    (asker,) = swarm.boxes("asker", ["swarm02"])
    first, second = swarm.boxes("web", ["swarm01"])
    eventually(lambda: asker.dig("tasks.web").data == addresses(first, second), "both are named")
    return first, second, asker


def addresses(*boxes: Box) -> list[str]:
    return sorted(one.addresses["internal"] for one in boxes)


def test_a_signal_is_known_elsewhere_and_so_is_that_it_was_survived(swarm: Swarm) -> None:
    """The container goes on, and Swarm never calls it anything but running: only its node can have told."""
    first, second, asker = two_and_an_asker(swarm)
    taken, withdrawn = signs(swarm, "taken"), signs(swarm, "withdrawn")
    swarm.docker("kill", "--signal", "HUP", second.id, node="swarm01")  # ends nothing
    swarm.docker("kill", "--signal", "TERM", first.id, node="swarm01")
    eventually(lambda: asker.dig("tasks.web").data == addresses(second), "the first is not named any more")
    assert signs(swarm, "taken") == taken + 1
    eventually(lambda: asker.dig("tasks.web").data == addresses(first, second), "it has survived", 30)
    assert signs(swarm, "withdrawn") == withdrawn + 1
    assert [box.id for box in swarm.boxes("web")] == [first.id, second.id]  # the same as ever


def test_a_task_that_is_removed_by_force(swarm: Swarm) -> None:
    first, second, asker = two_and_an_asker(swarm, "--restart-condition", "none")
    taken = signs(swarm, "taken")
    swarm.docker("rm", "--force", first.id, node="swarm01")
    eventually(lambda: asker.dig("tasks.web").data == addresses(second), "it is not named any more")
    assert signs(swarm, "taken") == taken + 1
