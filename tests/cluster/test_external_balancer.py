"""HAProxy in front of the three nodes, with checks: a node loses its power and clients keep being served."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.swarm import FRONT, LAB, NODES, Swarm, eventually

BALANCER = "10.10.10.1"
PORT = 8000
REQUESTS = 30


@contextmanager
def haproxy(folder: Path) -> Iterator[None]:
    """A real HAProxy in the outside client's namespace."""
    servers = "\n".join(f"  server {n} {FRONT[n]}:80 check inter 500ms fall 2 rise 1" for n in NODES)
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout connect 1s\n  timeout client 10s\n  timeout server 10s\n"
        "  retries 3\n  option redispatch\n"
        f"frontend front\n  bind {BALANCER}:{PORT}\n  default_backend swarm\n"
        f"backend swarm\n  balance roundrobin\n{servers}\n"
    )
    argv = [*LAB, "client", "--", "haproxy", "-db", "-f", str(config)]
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
        subprocess.run([*LAB, "client", "--", "pkill", "-f", str(config)], check=False)


def test_clients_of_an_external_balancer_survive_a_lost_node(swarm: Swarm, tmp_path: Path) -> None:
    swarm.service(
        "nodejs", "--publish", "80:8080", "--replicas", "2", "--constraint", "node.hostname!=swarm02"
    )
    tasks = {box.id[:12] for box in swarm.boxes("nodejs")}
    with haproxy(tmp_path):
        eventually(lambda: set(swarm.served_by(BALANCER, 6, PORT)) == tasks, "the balancer serves")
        swarm.lab("kill", "swarm02")
        try:
            eventually(lambda: steadily(swarm), "served while a node is dead")
        finally:
            swarm.lab("start", "swarm02", limit=300)
        eventually(lambda: swarm.ready("swarm02"), "swarm02's sidecar is back", 120)
        eventually(lambda: swarm.get("swarm02"), "swarm02's port answers again", 60)


def steadily(swarm: Swarm) -> bool:
    return "" not in swarm.served_by(BALANCER, REQUESTS, PORT)
