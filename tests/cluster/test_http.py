"""Host-routed HTTP on the real Swarm: Traefik's labels, entry points on every node, no request lost.

No service here publishes a port, and the mesh joins none of their networks.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.load import Load
from tests.support.swarm import APP_IMAGE, FRONT, LAB, NODES, Swarm, eventually

ENTRY = 8800  # where the ring's mesh has its entry point `web`
RATE, STEADY = 25, 25
STATUS = ("-o", "/dev/null", "-w", "%{http_code}")
ROUTER, SERVICE = "traefik.http.routers", "traefik.http.services"

STACK = f"""
version: "3.8"
services:
  web:
    image: {APP_IMAGE}
    networks: [shop]
    stop_grace_period: 10s
    healthcheck:
      test: ["CMD", "python3", "/app.py", "get", "http://127.0.0.1:8080/"]
      interval: 1s
      retries: 5
    deploy:
      mode: global
      update_config: {{order: stop-first}}
      labels:
        traefik.enable: "true"
        {ROUTER}.shop.rule: Host(`shop.example`) || HostRegexp(`^10[.]10[.]10[.]`)
        {ROUTER}.shop.entrypoints: web
        {SERVICE}.shop.loadbalancer.server.port: "8080"
        {SERVICE}.shop.loadbalancer.sticky.cookie.name: lb
        {ROUTER}.admin.rule: Host(`shop.example`) && PathPrefix(`/admin`)
        {ROUTER}.admin.priority: "1000"
        {ROUTER}.admin.service: shop
        {ROUTER}.admin.middlewares: strip,auth
        traefik.http.middlewares.strip.stripprefix.prefixes: /admin
        traefik.http.middlewares.auth.basicauth.users: "admin:$$apr1$$abcdefgh$$h9FWgUz3n9YxylKLlR5SQ/"
  anchor: # keeps the network on every node, so that every entry point reaches it while web is replaced
    image: {APP_IMAGE}
    command: [idle]
    networks: [shop]
    deploy: {{mode: global}}
networks:
  shop: {{}}
"""


def curl(
    swarm: Swarm, node: str, path: str = "/", *options: str, times: int = 1, host: str = "shop.example"
) -> list[str]:
    """The bodies; all requests over one connection if the server keeps it."""
    urls = [f"http://{FRONT[node]}:{ENTRY}{path}"] * times
    return swarm.client("curl", "-s", "-m", "5", "-H", f"Host: {host}", *options, *urls).splitlines()


def answers(
    swarm: Swarm, node: str, path: str = "/", *options: str, times: int = 1, host: str = "shop.example"
) -> list[dict[str, Any]]:
    lines = curl(swarm, node, path, *options, times=times, host=host)
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def shop(lab: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """One stack for all: Docker's own `stack rm` and `stack deploy` of one name run into each other."""
    swarm = Swarm()
    try:
        for node in NODES:
            eventually(lambda n=node: lab.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
        swarm.stack("shop", STACK, tmp_path_factory.mktemp("shop"))
        for node in NODES:
            eventually(
                lambda n=node: len({one["hostname"] for one in answers(swarm, n, times=6)}) == 3,  # type: ignore[misc]
                f"{node} serves all three tasks",
                120,
            )
        yield swarm
    finally:
        swarm.tidy()


def test_labels_of_a_stack_file_are_served_on_every_node(shop: Swarm) -> None:
    for node in NODES:
        found = answers(shop, node, times=9)
        assert Counter(one["hostname"] for one in found).most_common()[-1][1] == 3, "each task as often"
        assert {one["forwarded"] for one in found} == {"10.10.10.1"}, "the client's address"
    assert curl(shop, "swarm00", "/", *STATUS, host="other") == ["404"]
    assert curl(shop, "swarm01", "/admin/x", *STATUS) == ["401"]
    (admin,) = answers(shop, "swarm01", "/admin/x", "-u", "admin:secret")
    assert admin["path"] == "/x"
    (cookie,) = [
        line.split()[-1]
        for line in curl(shop, "swarm02", "/", "-c", "-", "-o", "/dev/null")
        if line.rstrip().split("\t")[-2:-1] == ["lb"]
    ]
    kept = {
        one["hostname"] for node in NODES for one in answers(shop, node, "/", "-b", f"lb={cookie}", times=4)
    }
    assert len(kept) == 1, "every node knows whose cookie it is"
    routes = {one["name"]: one for one in shop.mesh("swarm01", "routes")["routes"]}
    assert len(routes["shop"]["endpoints"]) == 3
    assert routes["admin"]["middlewares"] == ["StripPrefix", "BasicAuth"]


def test_a_change_of_labels_starts_no_task_anew_and_loses_nothing(shop: Swarm) -> None:
    before = {box.id for box in shop.boxes("shop_web")}
    load = Load("http", [*LAB, "client", "--"], RATE, [f"{FRONT[node]}:{ENTRY}" for node in NODES])
    try:
        load.more(STEADY, lambda one: not one.error)
        rule = f"{ROUTER}.shop.rule=Host(`new.example`) || HostRegexp(`^10[.]10[.]10[.]`)"
        shop.docker("service", "update", "--detach", "--label-add", rule, "shop_web")
        for node in NODES:
            eventually(
                lambda n=node: answers(shop, n, host="new.example"),  # type: ignore[misc]
                f"{node} follows",
                10,
            )
        load.more(STEADY, lambda one: not one.error)
    finally:
        load.stop()
    assert load.failures() == []
    assert {box.id for box in shop.boxes("shop_web")} == before


def test_a_rolling_update_loses_no_request(shop: Swarm) -> None:
    before = {box.id for box in shop.boxes("shop_web")}
    load = Load("http", [*LAB, "client", "--"], RATE, [f"{FRONT[node]}:{ENTRY}" for node in NODES])
    try:
        load.more(STEADY, lambda one: not one.error)
        shop.docker("service", "update", "--quiet", "--detach=false", "--env-add", "TASK=new", "shop_web")
        load.more(STEADY, lambda one: not one.error)
    finally:
        load.stop()
    assert load.failures() == []
    assert not before & {box.id for box in shop.boxes("shop_web")}


def test_a_node_that_has_nothing_of_the_network_serves_it_too(swarm: Swarm) -> None:
    """Through the sidecar of the task's node: its only task, and all of its network, is on swarm02."""
    swarm.network("far")
    labels = (f"{ROUTER}.far.rule=Host(`far.example`)", f"{SERVICE}.far.loadbalancer.server.port=8080")
    options = [word for label in labels for word in ("--label", label)]
    swarm.service("far", "--network", "far", "--constraint", "node.hostname==swarm02", *options)
    for node in NODES:
        (found,) = eventually(
            lambda n=node: answers(swarm, n, host="far.example"),  # type: ignore[misc]
            f"{node} serves it",
            30,
        )
        assert found["forwarded"] == "10.10.10.1"
        said = swarm.mesh(node, "explain", "http", "far.example", "/")["entrypoints"][0]
        assert said["network"] == "far"
        assert ("sidecars" in said["note"]) == (node != "swarm02")
    assert len(answers(swarm, "swarm00", "/", times=20, host="far.example")) == 20
    swarm.docker("service", "update", "--quiet", "--detach=false", "--force", "far")
    eventually(lambda: answers(swarm, "swarm01", host="far.example"), "the new task is reached", 30)


def test_a_published_port_in_mode_http(swarm: Swarm) -> None:
    """One connection's requests go to all tasks, and a killed task costs at most those under way there."""
    published = ("--publish", "92:8080", "--label", "mesh.port.92.mode=http", "--replicas", "3")
    swarm.service("plain", *published)
    urls = [f"http://{FRONT['swarm02']}:92/"] * 9

    def spread() -> bool:
        lines = swarm.client("curl", "-s", "-m", "5", *urls, check=False).splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        seen = Counter(one["hostname"] for one in found)
        return sorted(seen.values()) == [3, 3, 3] and {one["forwarded"] for one in found} == {"10.10.10.1"}

    eventually(spread, "nine requests of one connection are spread over three tasks")
    load = Load("http", [*LAB, "client", "--"], RATE, [f"{FRONT[node]}:92" for node in NODES])
    try:
        load.more(STEADY, lambda one: not one.error)
        box = swarm.boxes("plain")[0]
        swarm.docker("rm", "-f", box.id, node=box.node)
        load.more(3 * STEADY, lambda one: not one.error)
    finally:
        load.stop()
    assert len(load.failures()) <= 1, "a request that was under way there"
