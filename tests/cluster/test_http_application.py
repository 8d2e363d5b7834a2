"""A real application on the real Swarm, configured by Traefik's labels alone: pages, WebSockets and gRPC.

Two tiers in Python (tests/cluster/shop/app.py), driven by curl, Chromium and grpcio from outside, over TLS
with a certificate that is a Docker secret of the sidecar's service.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import key_of
from tests.support.certificates import pair
from tests.support.swarm import APP_IMAGE, FRONT, LAB, NODES, Swarm, eventually, run

SECURE = 8843  # where the ring's mesh has its entry point `websecure`
SUPPORT = Path(__file__).parents[1] / "support"
HERE = Path(__file__).parent / "shop"
PYTHON = "3.13"  # of the lab's images
ROUTER, SERVICE = "traefik.http.routers", "traefik.http.services"


def stack(folder: Path) -> str:
    return f"""
version: "3.8"
x-tier: &tier
  image: {APP_IMAGE}
  entrypoint: ["python3", "-u", "/shop/app.py"]
  volumes: ["{folder}:/shop:ro"]
  networks: [shop]
  stop_grace_period: 15s
services:
  web:
    <<: *tier
    command: [web]
    ports: ["8090:8080"]
    deploy:
      replicas: 3
      labels:
        - traefik.enable=true
        - traefik.docker.network=shop_shop
        - {ROUTER}.shop.rule=Host(`shop.example`)
        - {ROUTER}.shop.entrypoints=websecure
        - {ROUTER}.shop.tls=true
        - {ROUTER}.shop.middlewares=shop-gzip
        - {ROUTER}.shop-plain.rule=Host(`shop.example`)
        - {ROUTER}.shop-plain.entrypoints=web
        - {ROUTER}.shop-plain.middlewares=shop-https
        - traefik.http.middlewares.shop-https.redirectscheme.scheme=https
        - traefik.http.middlewares.shop-https.redirectscheme.port={SECURE}
        - traefik.http.middlewares.shop-https.redirectscheme.permanent=true
        - traefik.http.middlewares.shop-gzip.compress=true
        - {SERVICE}.shop.loadbalancer.server.port=8080
        - {SERVICE}.shop.loadbalancer.sticky.cookie=true
        - {SERVICE}.shop.loadbalancer.sticky.cookie.name=shop_session
        - {SERVICE}.shop.loadbalancer.sticky.cookie.secure=true
        - {SERVICE}.shop.loadbalancer.sticky.cookie.httponly=true
  api:
    <<: *tier
    command: [api]
    deploy: {{replicas: 2, labels: [traefik.enable=false]}}
  greeter:
    <<: *tier
    command: [greeter]
    deploy:
      mode: global
      update_config: {{order: stop-first, parallelism: 1}}
      labels:
        - traefik.enable=true
        - {ROUTER}.greeter.rule=Host(`grpc.example`)
        - {ROUTER}.greeter.entrypoints=websecure
        - {ROUTER}.greeter.tls=true
        - {SERVICE}.greeter.loadbalancer.server.port=50051
        - {SERVICE}.greeter.loadbalancer.server.scheme=h2c
networks:
  shop: {{}}
"""


@contextmanager
def spoken_to(tool: str, *words: str, **variables: str) -> Iterator[Callable[..., Any]]:
    """A tool of tests/support as the outside client runs it: a line in, a line out."""
    environment = [
        f"{name}={value}" for name, value in {"PYTHONPATH": str(HERE.parents[2]), **variables}.items()
    ]
    argv = [*LAB, "client", "--", "env", *environment, sys.executable, str(SUPPORT / tool), *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None

        def say(*step: Any) -> Any:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(json.dumps(step) + "\n")
            running.stdin.flush()
            line = running.stdout.readline()
            assert line, f"{tool} ended at {step}"
            return json.loads(line)

        try:
            yield say
        finally:
            running.stdin.close()


@dataclass
class Shop:
    swarm: Swarm
    certificate: Path

    def curl(self, node: str, *options: str, path: str = "/", scheme: str = "https") -> str:
        port = SECURE if scheme == "https" else 8800
        url = f"{scheme}://shop.example:{port}{path}"
        to = ("--resolve", f"shop.example:{port}:{FRONT[node]}", "--cacert", str(self.certificate))
        return self.swarm.client("curl", "-sS", "-m", "10", *to, *options, url)

    def calls(self, node: str) -> AbstractContextManager[Callable[..., Any]]:
        return spoken_to("grpc_calls.py", f"{FRONT[node]}:{SECURE}", "grpc.example", str(self.certificate))

    def serves(self, node: str) -> bool:
        return self.curl(node, path="/who").startswith("{")


def libraries(folder: Path) -> None:
    """What the application imports, for the Python of its image."""
    machine = os.uname().machine
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (34, 28, 17)]
    choice = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    legacy = f"--platform=manylinux2014_{machine}"
    run([*pip, "--target", str(folder), *choice, legacy, "aiohttp", "grpcio"], limit=300)


@pytest.fixture(scope="module")
def shop(lab: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    folder.chmod(0o755)
    (folder / "app.py").write_bytes((HERE / "app.py").read_bytes())
    libraries(folder / "lib")
    certificate, key = pair("shop.example", "grpc.example")
    (folder / "shop.pem").write_bytes(certificate)
    swarm = Swarm()
    for node in NODES:
        eventually(lambda n=node: lab.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
    lab_docker = swarm.docker
    (folder / "both.pem").write_bytes(certificate + key)
    lab_docker("secret", "create", "shop-tls", str(folder / "both.pem"))
    (folder / "both.pem").unlink()
    change = ("service", "update", "--detach=false", "--quiet")
    try:
        lab_docker(*change, "--secret-add", "source=shop-tls,target=shop.pem", "mesh_sidecar")
        swarm.stack("shop", stack(folder), folder)
        shop = Shop(swarm, folder / "shop.pem")
        for service in ("web", "api", "greeter"):
            swarm.settled(f"shop_{service}")
        for node in NODES:
            eventually(
                lambda n=node: shop.curl(n, path="/who").startswith("{"), f"{node} serves the shop", 60
            )  # type: ignore[misc]
        yield shop
    finally:
        swarm.tidy()
        lab_docker(*change, "--secret-rm", "shop-tls", "mesh_sidecar", check=False)
        lab_docker("secret", "rm", "shop-tls", check=False)
        for node in NODES:
            eventually(lambda n=node: lab.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]


def test_pages_on_every_node(shop: Shop) -> None:
    for node in NODES:
        assert shop.curl(node, "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", scheme="http") == (
            f"301 https://shop.example:{SECURE}/"
        )
        assert shop.curl(node, "-o", "/dev/null", "-w", "%{http_version} %{http_code}") == "2 200"
        assert shop.curl(node, "--http1.1", "-o", "/dev/null", "-w", "%{http_version}") == "1.1"
        who = json.loads(shop.curl(node, path="/who"))
        assert (who["client"], who["scheme"]) == ("10.10.10.1", "https")
        assert who["api"]
        assert "set-cookie: shop_session=" in shop.curl(node, "-D", "-", "-o", "/dev/null").lower()
    assert "content-encoding: gzip" in shop.curl(
        "swarm00", "--compressed", "-D", "-", "-o", "/dev/null", path="/"
    )
    published = {one["web"] for one in (shop.swarm.get("swarm01", 8090, "/who") for _ in range(6)) if one}
    assert len(published) == 3, "the published port is balanced as before"


def test_a_browser(shop: Shop) -> None:
    trusted = key_of(shop.certificate.read_bytes())
    host = f"shop.example={FRONT['swarm01']}"
    with spoken_to("browser.py", host, TRUSTED_KEY=trusted) as browser:
        assert browser("open", "http://shop.example:8800/") == "", "it follows to https"
        assert browser("evaluate", "location.href") == f"https://shop.example:{SECURE}/"
        assert browser("evaluate", "document.title") == "shop"
        assert browser("evaluate", "performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        heard = browser("evaluate", "window.heard")
        task = heard.removesuffix(" heard hello")
        asked = "Promise.all([...Array(12)].map(() => fetch('/who').then(a => a.json()).then(a => a.web)))"
        assert set(browser("evaluate", asked)) == {task}, (
            "the cookie holds, the WebSocket is on the same task"
        )
        assert browser("evaluate", "document.cookie") == "", "it is HttpOnly"
        # Another service's change, and a change of this one's labels, leave the open WebSocket alone.
        docker = shop.swarm.docker
        docker("service", "update", "--detach=false", "--quiet", "--label-add", "note=new", "shop_api")
        docker("service", "update", "--detach=false", "--quiet", "--label-add",
               f"{ROUTER}.shop.priority=50", "shop_web")  # fmt: skip
        seen = lambda: _route(shop, "swarm01", "shop")["priority"] == 50  # noqa: E731
        eventually(seen, "the route has its new priority", 20)
        assert browser("evaluate", "say('still there')") == f"{task} heard still there"


def test_grpc(shop: Shop) -> None:
    tasks = {box.id[:12] for box in shop.swarm.boxes("shop_greeter")}
    for node in NODES:
        with spoken_to(
            "grpc_calls.py", f"{FRONT[node]}:{SECURE}", "grpc.example", str(shop.certificate)
        ) as call:
            said = [call("Hello", {"name": "you"}) for _ in range(9)]
            assert {one["code"] for one in said} == {"OK"}
            assert {one["answers"][0]["task"] for one in said} == tasks, "balanced by call, not by connection"
            assert said[0]["trailers"] == {"x-task": said[0]["answers"][0]["task"]}
            assert said[0]["answers"][0]["client"] == "10.10.10.1"
            lost = call("Hello", {"name": "nobody"})
            assert (lost["code"], lost["details"]) == ("NOT_FOUND", "there is no nobody")
            assert call("Count", {"to": 2000})["answers"] == list(range(2000))
            assert call("Talk", ["a", "b", "c"])["answers"] == ["A", "B", "C"]


def test_replacing_all_tasks_loses_no_call(shop: Shop) -> None:
    before = {box.id for box in shop.swarm.boxes("shop_greeter")}
    with shop.calls("swarm00") as call:
        assert call("Hello", {"name": "you"})["code"] == "OK"
        update = [*LAB, "node", "swarm00", "--", "docker", "service", "update", "--detach=false", "--quiet"]
        with subprocess.Popen([*update, "--force", "shop_greeter"], stdout=subprocess.DEVNULL) as updating:
            done = call("load", 30, 20)
            assert updating.wait(120) == 0
    assert done["codes"] == {"OK": 600}, done["details"]
    assert not before & {box.id for box in shop.swarm.boxes("shop_greeter")}


def _route(shop: Shop, node: str, name: str) -> dict[str, Any]:
    routes: list[dict[str, Any]] = shop.swarm.mesh(node, "routes")["routes"]
    return next(one for one in routes if one["name"] == name)
