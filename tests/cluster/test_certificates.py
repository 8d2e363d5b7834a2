"""Certificates by ACME on the real Swarm: one node orders, any node proves, all nodes serve.

The authority is Pebble, outside of the Swarm, where the clients are. It looks at a node by chance each time.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acme.pebble import Pebble, needs_pebble
from tests.support.swarm import APP_IMAGE, FRONT, LAB, NODES, Swarm, eventually

pytestmark = needs_pebble

CLIENT = "10.10.10.1"
PLAIN, SECURE = 8800, 8843  # the ring's entry points
ROUTER = "traefik.http.routers"
MOUNTED = "/run/secrets/authority.crt"

STACK = f"""
version: "3.8"
services:
  web:
    image: {APP_IMAGE}
    networks: [shop]
    deploy:
      mode: global
      labels:
        traefik.enable: "true"
        {ROUTER}.shop.rule: Host(`shop.example`) || Host(`www.shop.example`)
        {ROUTER}.shop.entrypoints: websecure
        {ROUTER}.shop.tls.certresolver: le
        {ROUTER}.plain.rule: HostRegexp(`.+`)
        {ROUTER}.plain.entrypoints: web
        {ROUTER}.plain.middlewares: secure
        traefik.http.middlewares.secure.redirectscheme.scheme: https
        traefik.http.services.shop.loadbalancer.server.port: "8080"
networks:
  shop: {{}}
"""


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """As a client of the lab, with all that it starts."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*LAB, "client", "--", *command], stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def authority(swarm: Swarm, tmp_path: Path) -> Iterator[Pebble]:
    """In force for the sidecars, and not any more afterwards."""
    tmp_path.chmod(0o755)
    one = Pebble(tmp_path, PLAIN, host=CLIENT)
    service = ("service", "update", "--detach=false", "--quiet")
    with ExitStack() as stack:
        stack.enter_context(running(one.dns_command(), tmp_path / "dns.log"))
        stack.enter_context(running(one.command(), tmp_path / "pebble.log"))
        names = {name: list(FRONT.values()) for name in ("shop.example", "www.shop.example")}
        for name, addresses in names.items():
            listed = ",".join(f'"{address}"' for address in addresses)
            data = f'{{"host":"{name}","addresses":[{listed}]}}'
            url = f"http://{CLIENT}:{one.dns_management}/add-a"
            eventually(
                lambda d=data, u=url: swarm.client("curl", "-sf", "-w", "%{http_code}", "-d", d, u) == "200",  # type: ignore[misc]
                "the authority's DNS",
            )
        eventually(
            lambda: "newOrder" in swarm.client("curl", "-s", "--cacert", one.ca, one.directory),
            "the authority",
        )
        swarm.docker("secret", "create", "authority", one.ca)
        try:
            swarm.docker(
                *service,
                *("--secret-add", f"source=authority,target={Path(MOUNTED).name}"),
                *("--env-add", f"MESH_HTTP_ACME_DIRECTORY={one.directory}"),
                *("--env-add", f"MESH_HTTP_ACME_CA={MOUNTED}"),
                "mesh_sidecar",
            )
            yield one
        finally:
            swarm.docker(
                *service,
                *("--secret-rm", "authority", "--env-rm", "MESH_HTTP_ACME_DIRECTORY"),
                *("--env-rm", "MESH_HTTP_ACME_CA", "mesh_sidecar"),
                check=False,
            )
            swarm.docker("secret", "rm", "authority", check=False)
            for node in NODES:
                eventually(lambda n=node: swarm.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]


def test_ordered_once_and_served_by_all(swarm: Swarm, authority: Pebble, tmp_path: Path) -> None:
    roots = f"https://{CLIENT}:{authority.management}/roots/0"
    (tmp_path / "root.pem").write_text(swarm.client("curl", "-s", "--cacert", authority.ca, roots))
    swarm.stack("shop", STACK, tmp_path)

    def answer(node: str, name: str) -> str:
        return swarm.client(
            *("curl", "-s", "-m", "5", "--cacert", str(tmp_path / "root.pem")),
            *("-w", "%{http_code}", "-o", "/dev/null"),
            *("--resolve", f"{name}:{SECURE}:{FRONT[node]}", f"https://{name}:{SECURE}/"),
            check=False,
        )

    def serial(node: str) -> str:
        shown = f"openssl s_client -connect {FRONT[node]}:{SECURE} -servername shop.example"
        script = f"{shown} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        return swarm.client("sh", "-c", script, check=False)

    for node in NODES:
        for name in ("shop.example", "www.shop.example"):
            eventually(lambda n=node, h=name: answer(n, h) == "200", f"{node} serves {name}", 120)  # type: ignore[misc]
    assert len({serial(node) for node in NODES}) == 1, "the same certificate everywhere"
    ordered = {}
    for node in NODES:
        text = swarm.client("curl", "-s", f"http://{FRONT[node]}:9180/metrics")
        lines = [line for line in text.splitlines() if line.startswith("mesh_http_certificate_orders_total{")]
        ordered[node] = lines
        assert "mesh_http_certificate_expiry_timestamp_seconds{" in text
        problems = swarm.mesh(node, "status")["problems"]
        assert not [one for one in problems if "certificate" in one], problems
        files = swarm.docker(
            "exec", swarm.sidecar(node), "sh", "-c", "ls -l /var/lib/mesh/acme/*/", node=node
        )
        assert ("account.json" in files) is (node == "swarm00"), "the account is the managers'"
    assert ordered == {
        "swarm00": ['mesh_http_certificate_orders_total{result="issued"} 1.0'],
        "swarm01": [],
        "swarm02": [],
    }
    # Sidecars that start anew have it still.
    for node in NODES:
        before = serial(node)
        swarm.docker("rm", "-f", swarm.sidecar(node), node=node)
        eventually(lambda n=node: swarm.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
        eventually(lambda n=node: answer(n, "shop.example") == "200", f"{node} serves again", 60)  # type: ignore[misc]
        assert serial(node) == before
