"""A worker that lies, with its own certificate, from its own node: what is another's stays another's.

The lies are told from inside the worker's sidecar container, where Swarm's certificate of the node is. That
sidecar goes on telling the truth between them, so they are told many times a second.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.swarm import FRONT, NODES, Swarm, eventually

LIAR, VICTIM, MANAGER = "swarm01", "swarm02", "swarm00"
BACK = {name: f"192.168.2.{60 + index}" for index, name in enumerate(NODES)}
CERTIFICATES = "/var/lib/docker/swarm/certificates"
NETWORK, INTERNAL = "claims-attached", "claims-internal"
CLIENT = "10.10.10.1"
FEED_PORT, TUNNEL_PORT, ENTRY = 9182, 9183, 8800
LIES_SECONDS = 10

TELL = """
import asyncio, json, sys, time
import aiohttp
from mesh.peers.swarm_tls import MANAGER_NAME, SwarmCertificates
folder, url, seconds, report = sys.argv[1:]

async def main():
    statuses = {}
    context = SwarmCertificates(folder).client_context()
    ends = time.monotonic() + float(seconds)
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < ends:
            async with session.put(url, data=report, ssl=context, server_hostname=MANAGER_NAME) as response:
                statuses[response.status] = statuses.get(response.status, 0) + 1
            await asyncio.sleep(0.05)
    print(json.dumps(statuses))

asyncio.run(main())
"""

ASK = """
import asyncio, sys
from mesh.peers.swarm_tls import SwarmCertificates
folder, host, port, node, line = sys.argv[1:]

async def main():
    context = SwarmCertificates(folder).client_context()
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=node)
    writer.write(line.encode() + b"\\r\\n")
    print((await asyncio.wait_for(reader.readline(), 10)).decode().strip())
    writer.close()

asyncio.run(main())
"""


def in_sidecar(swarm: Swarm, code: str, *argv: str) -> str:
    return swarm.docker(
        "exec", swarm.sidecar(LIAR), "python", "-c", code, CERTIFICATES, *argv, node=LIAR
    ).strip()


@contextmanager
def lying(swarm: Swarm, report: dict[str, object]) -> Iterator[None]:
    """The manager is told this by the worker, again and again. It has to be understood, at least."""
    said: list[str] = []
    url = f"https://{BACK[MANAGER]}:{FEED_PORT}/v1/signs"
    argv = url, str(LIES_SECONDS), json.dumps({"ending": {}, **report})
    telling = threading.Thread(target=lambda: said.append(in_sidecar(swarm, TELL, *argv)))
    telling.start()
    try:
        yield
    finally:
        telling.join()
    assert json.loads(said[0]).get("204", 0) > 10


def problems(swarm: Swarm, node: str = MANAGER) -> list[str]:
    found: list[str] = swarm.mesh(node, "status")["problems"]
    return found


def entry(swarm: Swarm, node: str) -> tuple[str, str]:
    """Address and MAC of the node's endpoint on the ingress network."""
    (network,) = json.loads(swarm.docker("network", "inspect", "ingress", node=node))
    found = network["Containers"]["ingress-sbox"]
    return found["IPv4Address"].partition("/")[0], found["MacAddress"]


def remotes(swarm: Swarm) -> set[str]:
    """Whom the tasks see when the client comes by the victim's node."""
    urls = [f"http://{FRONT[VICTIM]}/"] * 6
    out = swarm.client("curl", "-s", "-m", "5", "-H", "Connection: close", *urls, check=False)
    return {json.loads(line)["remote"] for line in out.splitlines() if line}


@pytest.fixture
def db(swarm: Swarm) -> str:
    """A database that no label names, on an attachable and an internal network, on the victim's node. Returns
    its virtual IP."""
    swarm.network(NETWORK, "--attachable", "--subnet", "172.36.0.0/24")
    swarm.network(INTERNAL, "--internal", "--subnet", "172.37.0.0/24")
    swarm.service(
        "db", "--network", f"name={NETWORK},alias=data", "--network", INTERNAL,
        "--constraint", f"node.hostname=={VICTIM}",
    )  # fmt: skip
    swarm.service("asker", "--network", NETWORK, "--mode", "global")
    (service,) = json.loads(swarm.docker("service", "inspect", "db"))
    id_ = swarm.docker("network", "inspect", "-f", "{{.Id}}", NETWORK)
    vips = {one["NetworkID"]: one["Addr"].partition("/")[0] for one in service["Endpoint"]["VirtualIPs"]}
    return str(vips[id_])


def test_the_mac_of_another_nodes_entry(swarm: Swarm) -> None:
    """Every client that came by the victim's node would be answered through the liar's. (Of its own tasks the
    liar may say what it likes, so there is none.)"""
    elsewhere = ("--replicas", "2", "--constraint", f"node.hostname!={LIAR}")
    swarm.service("web", "--publish", "80:8080", *elsewhere, "--placement-pref", "spread=node.id")
    eventually(lambda: remotes(swarm) == {CLIENT}, "tasks see the client by the victim's node")
    own, _ = entry(swarm, LIAR)
    _, mac = entry(swarm, VICTIM)
    with lying(swarm, {"return_path": {"entry": own, "mac": mac}}):
        eventually(
            lambda: [one for one in problems(swarm) if one.startswith(f"node {LIAR}: return path: ")],
            "the lie is refused, and named",
            8,
        )
        for _ in range(3):
            assert remotes(swarm) == {CLIENT}
    eventually(lambda: not any(LIAR in one for one in problems(swarm)), "the truth is believed again", 20)


def test_the_name_of_a_service(swarm: Swarm, db: str) -> None:
    asker = next(box for box in swarm.boxes("asker") if box.node == VICTIM)
    eventually(lambda: asker.dig("db").data == [db], "db is known")
    network = swarm.docker("network", "inspect", "-f", "{{.Id}}", NETWORK)
    liars = next(box for box in swarm.boxes("asker") if box.node == LIAR).addresses[NETWORK]
    addresses = "172.36.0.200", liars
    containers = {
        f"c0ffee{number}" + "0" * 57: {
            "name": "db",
            "hostname": "tasks.db",
            "networks": {network: {"address": address, "aliases": ["data", "DB", f"db.{NETWORK}"]}},
        }
        for number, address in enumerate(addresses)
    }
    with lying(swarm, {"containers": containers}):
        eventually(
            lambda: [one for one in problems(swarm) if one.startswith(f"node {LIAR}: plain container ")],
            "the lie is refused, and named",
            8,
        )
        for name in ("db", "data", "DB", f"db.{NETWORK}"):
            assert asker.dig(name).data == [db], name
        assert not set(addresses) & set(asker.dig("tasks.db").data)
    eventually(lambda: not any(LIAR in one for one in problems(swarm)), "the truth is believed again", 20)


def test_a_tunnel_to_a_database(swarm: Swarm, db: str) -> None:
    """It is not reached from another node; what HTTP is routed to is, as a request shows."""
    labels = {
        "traefik.http.routers.claims.rule": "Host(`claims.example`)",
        "traefik.http.routers.claims.entrypoints": "web",
        "traefik.http.services.claims.loadbalancer.server.port": "8080",
    }
    given = [word for pair in labels.items() for word in ("--label", "=".join(pair))]
    swarm.service("site", "--network", INTERNAL, "--constraint", f"node.hostname=={VICTIM}", *given)
    node = swarm.docker("node", "inspect", "-f", "{{.ID}}", VICTIM)
    network = swarm.docker("network", "inspect", "-f", "{{.Id}}", INTERNAL)

    def address(service: str) -> str:
        (box,) = swarm.boxes(service)
        return box.addresses[INTERNAL]

    def asked(service: str, port: int) -> str:
        line = f"MESH/1 {network} {address(service)} {port}"
        return in_sidecar(swarm, ASK, BACK[VICTIM], str(TUNNEL_PORT), node, line)

    def routed() -> bool:
        """By the liar's node, which has nothing of the network."""
        argv = ("curl", "-s", "-m", "5", "-H", "Host: claims.example", f"http://{FRONT[LIAR]}:{ENTRY}/")
        return swarm.client(*argv, check=False).startswith("{")

    eventually(routed, "the site is reached through a tunnel")
    assert asked("site", 8080) == "OK"
    for service, port in (("db", 8080), ("db", 9000), ("site", 9000)):
        assert asked(service, port) == "NO not a port that HTTP is routed to"
    assert any(one.startswith(f"node {LIAR}: tunnels: refused (3 times)") for one in problems(swarm, VICTIM))
    assert routed()
    assert db
