"""The sidecar goes: by sudden death, and by uninstall. Docker's own answers return; nothing of ours stays.

Every test leaves the mesh deployed as it found it.
"""

import re

from tests.support.swarm import FRONT, LAB, NODES, Box, Swarm, eventually, run

OUR_TTL = 5
DOCKER_TTL = 600


def answered_with_ttl(box: Box, name: str) -> int:
    answers = box.dig(name).answers
    return answers[0][1] if answers else 0


def captured(swarm: Swarm) -> Box:
    """A container that our resolver answers."""
    swarm.network("internal", "--subnet", "172.32.0.0/24")
    swarm.service("nodejs", "--network", "internal", "--constraint", "node.hostname==swarm01")
    (box,) = swarm.boxes("nodejs")
    eventually(lambda: answered_with_ttl(box, "nodejs") == OUR_TTL, "our resolver answers")
    return box


def test_after_sigkill_docker_answers_and_after_the_restart_ours_does(swarm: Swarm) -> None:
    box = captured(swarm)
    before = swarm.sidecar(box.node)
    # Swarm starts it anew within a second; on a paused node it waits until we have looked.
    swarm.docker("node", "update", "--availability", "pause", box.node)
    try:
        swarm.docker("kill", "--signal", "KILL", before, node=box.node)
        eventually(
            lambda: answered_with_ttl(box, "nodejs") == DOCKER_TTL, "Docker's own resolver answers", 20
        )
    finally:
        swarm.docker("node", "update", "--availability", "active", box.node)
    eventually(lambda: answered_with_ttl(box, "nodejs") == OUR_TTL, "ours answers again", 90)
    assert swarm.sidecar(box.node) != before


def test_a_frozen_sidecar_is_bypassed_too(swarm: Swarm) -> None:
    box = captured(swarm)
    frozen = swarm.sidecar(box.node)
    swarm.docker("pause", frozen, node=box.node)
    try:
        eventually(
            lambda: answered_with_ttl(box, "nodejs") == DOCKER_TTL, "Docker's own resolver answers", 20
        )
    finally:
        swarm.docker("unpause", frozen, node=box.node)
    eventually(lambda: answered_with_ttl(box, "nodejs") == OUR_TTL, "ours answers again", 60)


def test_uninstall_leaves_nothing_and_docker_answers(swarm: Swarm) -> None:
    box = captured(swarm)
    swarm.service("published", "--publish", "80:8080")
    eventually(lambda: swarm.get("swarm02"), "the published port answers")
    swarm.docker("stack", "rm", "mesh")
    try:
        for node in NODES:
            eventually(lambda n=node: not left_behind(swarm, n), f"nothing of ours is left on {node}", 60)  # type: ignore[misc]
        assert "table ip mesh" not in box.tables()
        assert answered_with_ttl(box, "nodejs") == DOCKER_TTL
        assert ":53 " not in box.inside("ss", "-Hlnu", "sport = :53")
    finally:
        run([*LAB, "deploy"], limit=600)
    eventually(lambda: answered_with_ttl(box, "nodejs") == OUR_TTL, "redeployed, ours answers")


def left_behind(swarm: Swarm, node: str) -> list[str]:
    """Everything of ours that a node still shows: containers, tables, rules, sockets, marks in namespaces."""
    script = """
    docker ps -q --filter name=mesh_sidecar
    for ns in /var/run/docker/netns/*; do
        nsenter --net=$ns nft list tables | sed -n "s|^table .* mesh$|& in $ns|p"
        nsenter --net=$ns ss -Hltunp | grep -i mesh
    done
    nft list tables | grep -w mesh
    iptables -S 2>/dev/null | grep -w mesh
    ss -Hltun "sport = :9180 or sport = :9181 or sport = :9182"
    """
    out = swarm.on(node, "sh", "-c", script, check=False)
    return [line for line in out.splitlines() if line.strip()]


def test_metrics_are_there_for_prometheus(swarm: Swarm) -> None:
    box = captured(swarm)
    box.dig("nodejs")
    text = swarm.client("curl", "-s", f"http://{FRONT[box.node]}:9180/metrics")
    assert re.search(r'mesh_dns_requests_total\{[^}]*network="internal"[^}]*\} [1-9]', text)
    assert re.search(r'mesh_endpoints\{[^}]*service="nodejs"[^}]*\} 1', text)
    assert re.search(r"mesh_captured_containers [1-9]", text)
    assert swarm.client("curl", "-s", f"http://{FRONT[box.node]}:9180/healthz")
