"""Published ports: every node answers, with or without a task; `mode=host` only where the task runs."""

from tests.support.swarm import NODES, Swarm, eventually


def test_every_node_answers_also_one_without_a_task(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--constraint", "node.hostname==swarm01")
    (task,) = swarm.boxes("nodejs")
    for node in NODES:
        eventually(lambda node=node: swarm.get(node), f"{node} answers on port 80")  # type: ignore[misc]
        assert swarm.served_by(node, 3) == {task.id[:12]: 3}


def test_a_node_reaches_its_own_published_port_on_every_address(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--constraint", "node.hostname==swarm01")
    eventually(lambda: swarm.get("swarm02"), "port 80 answers")
    for address in ("127.0.0.1", "10.10.10.62", "192.168.2.62"):
        assert "hostname" in swarm.on("swarm02", "curl", "-s", "-m", "5", f"http://{address}/"), address


def test_a_container_reaches_published_ports_of_its_own_and_of_other_nodes(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--constraint", "node.hostname==swarm01")
    (task,) = swarm.boxes("nodejs")
    eventually(lambda: swarm.get("swarm02"), "port 80 answers")
    for address in ("10.10.10.60", "10.10.10.61", "10.10.10.62"):
        assert "hostname" in task.inside("curl", "-s", "-m", "5", f"http://{address}/"), address


def test_host_mode_is_left_to_docker_and_shown_so(swarm: Swarm) -> None:
    publish = "mode=host,published=8088,target=8080"
    swarm.service("hosted", "--publish", publish, "--constraint", "node.hostname==swarm01")
    eventually(lambda: swarm.get("swarm01", 8088), "the task's node answers")
    assert swarm.get("swarm00", 8088, seconds=2) is None
    assert swarm.get("swarm02", 8088, seconds=2) is None

    def modes() -> list[str]:
        return [p["mode"] for p in swarm.mesh("swarm01", "status")["ports"] if p["published"] == 8088]

    eventually(lambda: modes() == ["docker"], "status shows it as Docker's")


def test_a_published_port_without_a_task_is_refused_at_once(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080", "--replicas", "0")

    def curl_status() -> str:
        code = 'curl -s -o /dev/null -m 5 http://10.10.10.61/; echo "$?"'
        return swarm.client("sh", "-c", code).strip()

    eventually(lambda: curl_status() == "7", "connection refused (curl's 7), not a time-out (28)")


def test_the_nodes_own_nft_can_list_what_we_loaded(swarm: Swarm) -> None:
    """The image's libnftables may be newer; nft up to 1.1.1 crashes on some of what newer ones write."""
    swarm.service("nodejs", "--publish", "80:8080", "--replicas", "2")
    eventually(lambda: swarm.get("swarm01"), "port 80 answers")
    enter = ("nsenter", "--net=/var/run/docker/netns/ingress_sbox")
    assert "map ports" in swarm.on("swarm01", *enter, "nft", "list", "ruleset")
    assert "set published" in swarm.on("swarm01", "nft", "list", "ruleset")
