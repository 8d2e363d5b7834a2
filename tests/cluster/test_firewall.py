"""The operator's firewall on a node of the real Swarm: heeded however a port is carried."""

import json
import time
from collections.abc import Iterator

import pytest

from mesh.net.proc import has_ipv6
from tests.support.swarm import FRONT, NODES, Swarm, eventually

NODE, NODE6 = "swarm01", "fd00:10::61"
GOOD, BAD = "10.10.10.1", "10.10.10.77"
GOOD6, BAD6 = "fd00:10::1", "fd00:10::77"
KERNEL, OPEN, RELAY, ENTRY = 80, 90, 81, 8800
CLOSED = (KERNEL, RELAY, ENTRY)
RULE = "-i ens32 ! -s 10.10.10.0/28 -p tcp -m multiport --dports 80,81,8800 -j DROP"
RULE6 = "-i ens32 ! -s fd00:10::/124 -p tcp -m multiport --dports 80,81 -j DROP"
BACK_SECONDS = 2.0
SLACK_SECONDS = 3.0  # commands on the lab take as long as that when the machine is busy


@pytest.fixture
def guarded(swarm: Swarm) -> Iterator[Swarm]:
    """A client with a second address, and a node whose firewall is as before when the test is over."""
    interface = swarm.client("sh", "-c", f"ip -o -4 addr show to {GOOD} | awk '{{print $2}}'").strip()
    swarm.client("ip", "addr", "add", f"{BAD}/24", "dev", interface)
    for address in (GOOD6, BAD6) if has_ipv6() else ():
        swarm.client("ip", "addr", "add", f"{address}/64", "dev", interface, "nodad")
    if has_ipv6():
        swarm.on(NODE, "ip", "addr", "add", f"{NODE6}/64", "dev", "ens32", "nodad")
    swarm.on(NODE, "sh", "-c", "iptables-save > /tmp/firewall.saved")
    swarm.service("web", "--publish", f"{KERNEL}:8080", "--publish", f"{OPEN}:8080", "--replicas", "2",
                  "--label", "traefik.http.routers.fw.rule=Host(`fw.test`)",
                  "--label", "traefik.http.services.fw.loadbalancer.server.port=8080")  # fmt: skip
    swarm.service("old", "--publish", f"{RELAY}:8080", "--label", f"mesh.port.{RELAY}.mode=proxy")
    for port in (*CLOSED, OPEN):
        eventually(lambda port=port: reached(swarm, port, BAD), f"{port} answers")  # type: ignore[misc]
    yield swarm
    swarm.on(NODE, "sh", "-c", "iptables-restore < /tmp/firewall.saved")
    for chain in ("INPUT", "FORWARD"):
        swarm.on(NODE, "ip6tables", "-F", chain, check=False)
    swarm.on(NODE, "sh", "-c", "ip6tables -F; ip6tables -X", check=False)
    for address, length in ((BAD, 24), *(((GOOD6, 64), (BAD6, 64)) if has_ipv6() else ())):
        swarm.client("ip", "addr", "del", f"{address}/{length}", "dev", interface, check=False)
    swarm.on(NODE, "ip", "addr", "del", f"{NODE6}/64", "dev", "ens32", check=False)


def reached(swarm: Swarm, port: int, source: str, seconds: float = 1.0) -> bool:
    host = f"[{NODE6}]" if ":" in source else FRONT[NODE]
    out = swarm.client("curl", "-gs", "-m", f"{seconds:g}", "--interface", source, "-H", "Host: fw.test",
                       f"http://{host}:{port}/", check=False)  # fmt: skip
    return out.startswith("{") and bool(json.loads(out))


def answers(swarm: Swarm, port: int, source: str) -> bool:
    """Reached, if it takes a second packet: on a busy machine one may be lost."""
    return reached(swarm, port, source, 5.0)


def heeded(swarm: Swarm) -> None:
    """Closed for one client, open for the other; and another port open for both."""
    for port in CLOSED:
        assert not reached(swarm, port, BAD), f"{port} answers {BAD}"
        eventually(lambda port=port: reached(swarm, port, GOOD), f"{port} answers {GOOD}")  # type: ignore[misc]
    assert answers(swarm, OPEN, BAD)


def test_a_rule_in_docker_user_is_heeded_and_stays_so(guarded: Swarm) -> None:
    guarded.on(NODE, "iptables", "-I", "DOCKER-USER", *RULE.split())
    heeded(guarded)
    for availability in ("drain", "active"):
        guarded.docker("node", "update", "--availability", availability, NODE)
        if availability == "drain":
            eventually(lambda: not reached(guarded, OPEN, GOOD), "the sidecar has gone", 90)
            left = guarded.on(NODE, "sh", "-c", "iptables-save; nft list tables")
            assert "mesh" not in left.lower(), left
    eventually(lambda: guarded.ready(NODE), "it is back", 90)
    eventually(lambda: reached(guarded, KERNEL, GOOD), "ports answer again", 60)
    heeded(guarded)
    guarded.on(NODE, "sh", "-c", "iptables -D FORWARD -j DOCKER-USER; iptables -I FORWARD -j DOCKER-USER")
    heeded(guarded)


def test_the_rule_that_keeps_clients_out_is_named(guarded: Swarm) -> None:
    guarded.on(NODE, "iptables", "-I", "DOCKER-USER", *RULE.split())
    guarded.on(
        NODE, "iptables", "-A", "INPUT", "-i", "ens32", "-p", "tcp", "--dport", str(RELAY), "-j", "REJECT"
    )
    assert not reached(guarded, RELAY, GOOD)
    assert answers(guarded, KERNEL, GOOD)
    told = guarded.docker("exec", guarded.sidecar(NODE), "mesh", "doctor", "--json", node=NODE, check=False)
    (check,) = (one for one in json.loads(told)["checks"] if one["name"] == "firewall")
    assert "-A DOCKER-USER ! -s 10.10.10.0/28 -i ens32" in check["seen"], check
    assert "-A INPUT -i ens32 -p tcp -m tcp --dport 81 -j REJECT" in check["seen"], check
    assert (check["verdict"], bool(check["remedy"])) == ("warn", True)
    for port in (KERNEL, RELAY):
        (path,) = guarded.mesh(NODE, "explain", "port", str(port))["ports"]
        notes = [hop["note"] for hop in path["hops"] if hop["where"] == "firewall"]
        assert any("-A DOCKER-USER" in note for note in notes), path
    guarded.on(NODE, "iptables", "-P", "INPUT", "DROP")
    try:
        told = guarded.docker(
            "exec", guarded.sidecar(NODE), "mesh", "doctor", "--json", node=NODE, check=False
        )
    finally:
        guarded.on(NODE, "iptables", "-P", "INPUT", "ACCEPT")
    (check,) = (one for one in json.loads(told)["checks"] if one["name"] == "firewall")
    assert "'-P INPUT DROP' keeps every client from 81/tcp of old" in check["seen"], check
    assert check["verdict"] == "fail"
    assert "ufw allow 81/tcp" in check["remedy"]


def test_rules_that_are_flushed_are_back_within_two_seconds(guarded: Swarm) -> None:
    guarded.on(NODE, "iptables", "-I", "DOCKER-USER", *RULE.split())
    guarded.on(NODE, "sh", "-c", "iptables-save > /tmp/firewall.rule")
    heeded(guarded)
    for flush in ("nft flush ruleset", "iptables -F"):
        guarded.on(NODE, "sh", "-c", flush)
        began = time.monotonic()
        for port in (*CLOSED, OPEN):
            eventually(lambda port=port: reached(guarded, port, GOOD), f"{port} answers after {flush}")  # type: ignore[misc]
        assert time.monotonic() - began < BACK_SECONDS + SLACK_SECONDS
        guarded.on(NODE, "sh", "-c", "iptables-restore < /tmp/firewall.rule")
        heeded(guarded)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_over_ipv6_where_there_is_a_chain_to_ask(guarded: Swarm) -> None:
    assert not reached(guarded, KERNEL, GOOD6), "engine 20.10 makes no IPv6 DOCKER-USER"
    guarded.on(NODE, "ip6tables", "-N", "DOCKER-USER")
    for port in (KERNEL, RELAY, OPEN):
        eventually(lambda port=port: reached(guarded, port, BAD6), f"{port} answers over IPv6", 20)  # type: ignore[misc]
    guarded.on(NODE, "ip6tables", "-I", "DOCKER-USER", *RULE6.split())
    for port in (KERNEL, RELAY):
        assert not reached(guarded, port, BAD6)
        assert answers(guarded, port, GOOD6)
    assert answers(guarded, OPEN, BAD6)


def test_no_container_reaches_the_nodes_127_0_0_1(guarded: Swarm) -> None:
    """With what NET_RAW allows any container to write, done here by routes in its namespace."""
    (box, *_) = guarded.boxes("web", [NODE]) or guarded.boxes("old", [NODE]) or guarded.boxes("web")
    gateway = box.inside("sh", "-c", "ip -4 route show default | awk '{print $3}'").strip()
    own = box.inside(
        "sh", "-c", f"ip -4 route get {gateway} | sed -n 's/.* src \\([0-9.]*\\).*/\\1/p'"
    ).strip()
    listening = "import http.server as h; h.HTTPServer(('127.0.0.1', 9188), h.SimpleHTTPRequestHandler)"
    guarded.on(
        box.node, "sh", "-c", f'(timeout 60 python3 -c "{listening}.serve_forever()") >/dev/null 2>&1 &'
    )
    asked = "curl -s -m 2 -o /dev/null -w %{http_code} http://127.0.0.1"
    eventually(lambda: guarded.on(box.node, "sh", "-c", f"{asked}:9188/", check=False) == "200", "it listens")
    assert guarded.on(box.node, "sh", "-c", f"{asked}:{KERNEL}/", check=False) == "200", (
        "route_localnet is of use"
    )
    for setting in ("route_localnet", "accept_local"):
        box.inside("sh", "-c", f"for one in /proc/sys/net/ipv4/conf/*/{setting}; do echo 1 > $one; done")
    for route in ("del local 127.0.0.0/8 table local", "del local 127.0.0.1 table local",
                  f"add 127.0.0.0/8 via {gateway} src {own}"):  # fmt: skip
        box.inside("sh", "-c", f"ip route {route}")
    assert box.inside("sh", "-c", f"{asked}:9188/", check=False) == "000"


assert NODE in NODES
