"""Published ports over IPv6, which Docker's routing mesh does not have."""

import json
from collections.abc import Iterator

import pytest

from mesh.net.proc import has_ipv6
from tests.support.swarm import NODES, Swarm, eventually

ADDRESSES = {node: f"fd00:10::{60 + number}" for number, node in enumerate(NODES)}
CLIENT = "fd00:10::1"

# The sidecar sees that its rule in INPUT is flushed and puts it back while DOCKER-USER is there, perhaps
# between the two commands: then the chain is in use.
FORGET = "for _ in $(seq 50); do ip6tables -F; ip6tables -X && exit 0; done; exit 1"

pytestmark = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


@pytest.fixture
def addressed(swarm: Swarm) -> Iterator[Swarm]:
    """The nodes and the outside client have IPv6 addresses on the front network."""
    client = swarm.client("sh", "-c", "ip -o -4 addr show to 10.10.10.1 | awk '{print $2}'").strip()
    swarm.client("ip", "addr", "add", f"{CLIENT}/64", "dev", client, "nodad")
    for node, address in ADDRESSES.items():
        swarm.on(node, "ip", "addr", "add", f"{address}/64", "dev", "ens32", "nodad")
        swarm.on(node, "ip6tables", "-N", "DOCKER-USER")  # as Docker does with "ip6tables": true
    yield swarm
    swarm.client("ip", "addr", "del", f"{CLIENT}/64", "dev", client)
    for node, address in ADDRESSES.items():
        swarm.on(node, "ip", "addr", "del", f"{address}/64", "dev", "ens32")
        swarm.on(node, "sh", "-c", FORGET)


def served(swarm: Swarm, node: str, count: int) -> set[str]:
    url = [f"http://[{ADDRESSES[node]}]/"] * count
    out = swarm.client("curl", "-gs", "-m", "5", "-H", "Connection: close", *url, check=False)
    return {json.loads(line)["hostname"] for line in out.splitlines() if line}


def test_every_task_is_reached_by_every_node(addressed: Swarm) -> None:
    addressed.service("web", "--publish", "80:8080", "--replicas", "3", "--placement-pref", "spread=node.id")
    tasks = {box.id[:12] for box in addressed.boxes("web")}
    for node in NODES:
        eventually(lambda n=node: served(addressed, n, 6) == tasks, f"by {node}")  # type: ignore[misc]
        (port,) = addressed.mesh(node, "status")["ports"]
        assert (port["mode"], port["note"]) == ("kernel", ""), "over IPv4 it is the kernel's"
