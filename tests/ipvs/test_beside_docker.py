"""With IPVS, Docker's routing mesh works: ours goes before it, leaves it as it is, and steps back.

The tests build upon each other in this order: a machine that emulates has no time to begin anew for each.
"""

import json
from collections.abc import Callable

import pytest

from tests.ipvs.machine import NODES, OURS, RELAYED, THEIRS, Machine
from tests.support.swarm import eventually

CLIENT = "10.10.10.1"
REQUESTS = 6
BACK_IN_SERVICE = 90.0  # seconds, emulated; three on a machine of this decade


def carried_by_ipvs(machine: Machine, port: int, node: str = "swarm00") -> int:
    """Of REQUESTS that were all answered, how many were IPVS's."""
    earlier = machine.ipvs_connections(node)
    assert "" not in machine.seen_by(port, node, REQUESTS)
    return machine.ipvs_connections(node) - earlier


def test_without_us_it_is_dockers(powered: Machine, before: dict[str, dict[str, list[str]]]) -> None:
    assert {str(OURS), str(THEIRS)} <= set(powered.marks())
    for node in NODES:
        assert any("DOCKER-INGRESS" in line for line in before[node]["host: iptables -t nat -S"])
        assert any(line.startswith("-A -f") for line in before[node]["ipvsadm -S -n"])
    assert carried_by_ipvs(powered, OURS) == REQUESTS
    seen = powered.seen_by(OURS)
    assert CLIENT not in seen, "then Docker keeps the client's address, and this ring shows nothing"


def test_with_us_its_rules_are_what_they_were(
    deployed: Machine, before: dict[str, dict[str, list[str]]]
) -> None:
    for node in NODES:
        assert deployed.dockers(node) == before[node]


def test_our_port_passes_ipvs_by_and_keeps_the_client(deployed: Machine) -> None:
    for node in NODES:
        assert carried_by_ipvs(deployed, OURS, node) == 0
        assert deployed.seen_by(OURS, node) == {CLIENT}
    flows = deployed.in_sandbox("swarm00", "conntrack", "-L", "-p", "tcp", "--dport", str(OURS))
    assert f"src={CLIENT}" in flows, "the ingress namespace tracks our rewritten connections"


def test_a_service_that_is_left_to_docker_is_dockers(deployed: Machine) -> None:
    assert carried_by_ipvs(deployed, THEIRS) == REQUESTS
    assert CLIENT not in deployed.seen_by(THEIRS)


def test_a_virtual_ip_from_a_container(deployed: Machine) -> None:
    """The task sees the caller itself by ours; by Docker's the load balancer of the caller's node."""
    caller = deployed.boxes("ours", ["swarm01"])[0]  # those of a service left to Docker are not captured
    remotes = {}
    for name in ("ours", "theirs"):
        vip = deployed.vip(name, "back")
        answers = [caller.inside("curl", "-s", "-m", "20", f"http://{vip}:8080/") for _ in range(4)]
        remotes[name] = {json.loads(answer)["remote"] for answer in answers}
    assert remotes["ours"] == {caller.addresses["back"]}
    assert remotes["theirs"]
    assert caller.addresses["back"] not in remotes["theirs"]


def test_a_relayed_port_although_docker_holds_it(deployed: Machine) -> None:
    label = ("--label", f"mesh.port.{RELAYED}.mode=proxy")
    deployed.service("relayed", "--publish", f"{RELAYED}:8080", "--replicas", "2", *label)
    try:
        eventually(lambda: carried_by_ipvs(deployed, RELAYED) == 0, "it is ours on swarm00", BACK_IN_SERVICE)
        ports = deployed.mesh("swarm00", "status")["ports"]
        assert [one["mode"] for one in ports if one["published"] == RELAYED] == ["proxy"]
    finally:
        deployed.docker("service", "rm", "relayed")
        deployed.services.remove("relayed")
    eventually(lambda: str(RELAYED) not in deployed.marks(), "Docker has taken its rules for it out")


@pytest.mark.parametrize("fault", ["STOP", "KILL"])
def test_a_sidecar_that_is_gone_leaves_the_port_to_ipvs(deployed: Machine, fault: str) -> None:
    """No process has to do anything for that: our rules match only while they are refreshed."""
    sidecar = deployed.sidecar("swarm00")
    lost = 0

    def by(count: int) -> Callable[[], bool]:
        def look() -> bool:
            nonlocal lost
            earlier = deployed.ipvs_connections()
            lost += "" in deployed.seen_by(OURS, count=2)
            return deployed.ipvs_connections() - earlier == count

        return look

    deployed.docker("kill", "--signal", fault, sidecar)
    eventually(by(2), f"IPVS carries the port after SIG{fault}", BACK_IN_SERVICE)
    if fault == "STOP":
        deployed.docker("kill", "--signal", "CONT", sidecar)
    eventually(by(0), "and ours again, once a sidecar lives", 2 * BACK_IN_SERVICE)
    eventually(lambda: deployed.seen_by(OURS) == {CLIENT}, "with the client's address", BACK_IN_SERVICE)
    assert lost == 0, "connections in between were refused or lost"
