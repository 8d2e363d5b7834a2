"""A UDP port in user space (`mode: proxy`): one client's datagrams go on when its task is gone."""

from tests.support.swarm import FRONT, Swarm, eventually

# From one port, so that it is one client to the relay.
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.bind(("", int(sys.argv[3])))
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"who")
print(s.recv(100).decode())
"""
PORT, CLIENT_PORT = 91, 40000


def asked(swarm: Swarm, node: str = "swarm00", client_port: int = CLIENT_PORT) -> str:
    """Whom the task saw; "" when it did not answer."""
    return swarm.client("python3", "-c", ASK, FRONT[node], str(PORT), str(client_port), check=False).strip()


def test_a_client_is_answered_on_when_its_task_is_killed(swarm: Swarm) -> None:
    published = ("--publish", f"{PORT}:9000/udp", "--label", f"mesh.port.{PORT}.mode=proxy")
    swarm.service("echo", *published, "--replicas", "2", "--placement-pref", "spread=node.id")

    def by_the_relay() -> bool:
        ports = swarm.mesh("swarm00", "status")["ports"]
        return any(one["published"] == PORT and one["mode"] == "proxy" and not one["note"] for one in ports)

    eventually(by_the_relay, "the relay has the port")
    relay = eventually(lambda: asked(swarm), "a task answers")
    assert relay.startswith("10.0."), "the relay asks from the ingress network"
    for box in swarm.boxes("echo"):  # one of them is the client's
        swarm.docker("rm", "-f", box.id, node=box.node)
        eventually(lambda: asked(swarm) == relay, f"it is answered without the task on {box.node}", 10)
        eventually(lambda gone=box: gone.id not in {one.id for one in swarm.boxes("echo")}, "it is gone")  # type: ignore[misc]
        swarm.settled("echo", 2)
    for number in range(4):
        assert asked(swarm, "swarm01", CLIENT_PORT + 1 + number), "by another node, from other ports"
