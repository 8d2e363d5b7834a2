"""A published HTTP service, scaled up and down: the client sees exactly the running tasks, in turn."""

from tests.support.swarm import FRONT, NODES, Swarm, eventually

ROUNDS = 3


def hostnames(swarm: Swarm, service: str) -> set[str]:
    return {box.id[:12] for box in swarm.boxes(service)}


def sees_exactly_the_tasks(swarm: Swarm, service: str, entry: str) -> bool:
    tasks = hostnames(swarm, service)
    return swarm.served_by(entry, ROUNDS * len(tasks)) == dict.fromkeys(tasks, ROUNDS)


def test_scaling_up_and_down_is_followed_in_round_robin(swarm: Swarm) -> None:
    swarm.service("nodejs", "--publish", "80:8080")
    for replicas in (1, 2, 3, 1):
        swarm.scale("nodejs", replicas)
        for entry in NODES:
            what = f"{entry} spreads evenly over {replicas} tasks"
            eventually(lambda entry=entry: sees_exactly_the_tasks(swarm, "nodejs", entry), what, 30)  # type: ignore[misc]


def test_the_relay_carries_a_port_that_asks_for_it(swarm: Swarm) -> None:
    label = "mesh.port.8081.mode=proxy"
    swarm.service("relayed", "--publish", "8081:8080", "--replicas", "2", "--label", label)
    tasks = hostnames(swarm, "relayed")
    for node in NODES:
        eventually(lambda node=node: set(swarm.served_by(node, 4, 8081)) == tasks, f"{node} relays")  # type: ignore[misc]
        listeners = swarm.on(node, "ss", "-Hltn", "sport = :8081")
        assert ":8081" in listeners, f"nobody listens on {node}:8081"
    shown = swarm.mesh("swarm00", "status")
    assert [p["mode"] for p in shown["ports"] if p["published"] == 8081] == ["proxy"]


def test_half_closed_connections_are_answered_through_the_relay(swarm: Swarm) -> None:
    label = "mesh.port.8082.mode=proxy"
    swarm.service("halves", "--publish", "8082:8080", "--label", label)
    eventually(lambda: swarm.get("swarm01", 8082), "the relay answers")
    code = (
        "import socket,sys; s=socket.create_connection((sys.argv[1],8082),5);"
        "s.sendall(b'GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n'); s.shutdown(socket.SHUT_WR);"
        "d=b''.join(iter(lambda: s.recv(65536), b'')); print(d.decode())"
    )
    out = swarm.client("python3", "-c", code, FRONT["swarm01"])
    assert out.startswith("HTTP/1.")
    assert '"hostname"' in out
