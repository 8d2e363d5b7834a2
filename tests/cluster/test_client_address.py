"""The application sees the outside client's own address: by whichever node it came, wherever the task is."""

import json
from typing import Any

import pytest

from tests.support.swarm import FRONT, NODES, Swarm, eventually

CLIENT = "10.10.10.1"
ASK_WHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"who")
print(s.recv(100).decode())
"""


def remotes(swarm: Swarm, node: str, count: int = 6) -> dict[str, set[str]]:
    """Who answered at the node's port 80 → which client it saw. "": no answer."""
    url = [f"http://{FRONT[node]}/"] * count
    out = swarm.client("curl", "-s", "-m", "5", "-H", "Connection: close", *url, check=False)
    found: dict[str, set[str]] = {}
    for line in filter(None, out.splitlines()):
        answer = json.loads(line)
        found.setdefault(answer["hostname"], set()).add(answer["remote"])
    return found


def kept_everywhere(swarm: Swarm, nodes: tuple[str, ...] = NODES) -> bool:
    """Every task sees the client itself by every node."""
    tasks = {box.id[:12]: {CLIENT} for box in swarm.boxes("web")}
    return all(remotes(swarm, node, 2 * len(tasks)) == tasks for node in nodes)


def port(swarm: Swarm, node: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = swarm.mesh(node, "status")["ports"]
    return next(one for one in found if (one["published"], one["protocol"]) == (80, "tcp"))


@pytest.fixture
def web(swarm: Swarm) -> Swarm:
    published = ("--publish", "80:8080", "--publish", "90:9000/udp")
    swarm.service("web", *published, "--replicas", "3", "--placement-pref", "spread=node.id")
    return swarm


def test_by_every_node_at_every_task(web: Swarm) -> None:
    assert {box.node for box in web.boxes("web")} == set(NODES)
    eventually(lambda: kept_everywhere(web), "every task sees the client by every node")
    assert [port(web, node)["note"] for node in NODES] == [""] * 3


def test_tasks_come_and_go(web: Swarm) -> None:
    for replicas in (5, 2):
        web.scale("web", replicas)
        eventually(lambda: kept_everywhere(web), f"with {replicas} tasks too")


def test_datagrams(web: Swarm) -> None:
    """The application is bound to no address, and its default route is not the ingress network."""

    def seen(node: str) -> list[str]:
        out = (web.client("python3", "-c", ASK_WHO, FRONT[node], "90", check=False) for _ in range(3))
        return [line.strip() for line in out]

    for node in NODES:
        eventually(lambda n=node: seen(n) == [CLIENT] * 3, f"by {node}")  # type: ignore[misc]


def test_by_label_it_is_dockers_way(web: Swarm) -> None:
    eventually(lambda: kept_everywhere(web), "kept at first")
    web.docker("service", "update", "--detach", "--label-add", "mesh.port.80.source_ip=masquerade", "web")
    eventually(lambda: not any(CLIENT in seen for seen in remotes(web, "swarm01").values()), "masqueraded")
    assert "as labelled" in port(web, "swarm01")["note"]


def test_a_node_whose_tasks_are_not_captured_is_masqueraded_to_and_named(swarm: Swarm) -> None:
    swarm.service(
        "web",
        *("--publish", "80:8080", "--container-label", "mesh.capture=off"),
        *("--constraint", "node.hostname==swarm02"),
    )
    eventually(lambda: remotes(swarm, "swarm01"), "the port answers")
    ((seen,),) = remotes(swarm, "swarm01").values()
    (seen,) = remotes(swarm, "swarm01").values()
    assert CLIENT not in seen
    assert "swarm02" in port(swarm, "swarm01")["note"]


def test_a_node_leaves_and_comes_back(web: Swarm) -> None:
    eventually(lambda: kept_everywhere(web), "kept at first")
    try:
        web.docker("node", "update", "--availability", "drain", "swarm02")
        eventually(lambda: not web.boxes("web", ["swarm02"]), "no task runs on swarm02", 90)
        web.settled("web", 3)
        eventually(lambda: kept_everywhere(web, ("swarm00", "swarm01")), "kept by the others")
    finally:
        web.docker("node", "update", "--availability", "active", "swarm02")
    eventually(lambda: web.ready("swarm02"), "swarm02's sidecar is back", 90)
    eventually(lambda: kept_everywhere(web), "and by all again")
