"""`mesh explain` and `mesh doctor` on a real Swarm: what they say is so."""

import json
from typing import Any

from tests.support.swarm import NODES, Swarm, eventually

REPLICAS = 3


def explained(swarm: Swarm, node: str) -> dict[str, Any]:
    (port,) = swarm.mesh(node, "explain", "port", "80")["ports"]
    return dict(port)


def well(port: dict[str, Any]) -> bool:
    """Every hop as it should be, and every task sent the client's own address."""
    hops, tasks = port["hops"], port["tasks"]
    kept = [task["client"] == "kept" and task["state"] == "ok" for task in tasks]
    return len(kept) == REPLICAS and all(kept) and all(hop["state"] == "ok" for hop in hops)


def diagnosed(swarm: Swarm, node: str) -> dict[str, dict[str, str]]:
    script = f"docker exec {swarm.sidecar(node)} mesh doctor --json"
    checks = json.loads(swarm.on(node, "sh", "-c", script, check=False))["checks"]
    return {one["name"]: one for one in checks}


def test_a_port_is_explained_alike_on_every_node(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--replicas", str(REPLICAS))
    for node in NODES:
        eventually(lambda n=node: well(explained(swarm, n)), f"{node} leads port 80 to all tasks")  # type: ignore[misc]
    shares = {task["share"] for task in explained(swarm, "swarm01")["tasks"]}
    assert shares == {1 / REPLICAS}
    assert set(swarm.served_by("swarm01", 9).values()) == {9 // REPLICAS}
    swarm.on("swarm01", "nsenter", "--net=/run/docker/netns/ingress_sbox", "nft", "flush", "ruleset")
    eventually(lambda: well(explained(swarm, "swarm01")), "what was flushed is there again")
    assert set(swarm.served_by("swarm01", 9).values()) == {9 // REPLICAS}


def test_a_virtual_ip_is_read_back_in_each_container(swarm: Swarm) -> None:
    swarm.network("internal")
    swarm.service("nodejs", "--network", "internal", "--mode", "global")
    for node in NODES:

        def loaded(name: str = node) -> bool:
            (network,) = swarm.mesh(name, "explain", "service", "nodejs")["networks"]
            return [hop["state"] for hop in network["containers"]] == ["ok"] and len(network["tasks"]) == 3

        eventually(loaded, f"the virtual IP leads to all tasks from {node}")


def test_the_doctor_finds_the_lab_well_and_what_is_then_broken(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--replicas", str(REPLICAS))
    for node in NODES:
        ill = [one for one in diagnosed(swarm, node).values() if one["verdict"] == "fail"]
        assert ill == []
    try:
        swarm.on("swarm01", "ip", "link", "set", "ens33", "mtu", "1400")
        mtu = diagnosed(swarm, "swarm01")["MTU"]
        assert (mtu["verdict"], "ens33 takes 1350" in mtu["seen"]) == ("fail", True)
    finally:
        swarm.on("swarm01", "ip", "link", "set", "ens33", "mtu", "1500")
    assert diagnosed(swarm, "swarm01")["MTU"]["verdict"] == "ok"
