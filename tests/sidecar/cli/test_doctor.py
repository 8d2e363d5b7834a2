"""`mesh doctor`: what it sees in real namespaces and over real sockets, and that nothing missing stops it."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mesh.errors import EngineUnavailable, KernelError
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.return_paths import put_in
from mesh.telemetry.doctor import Check, Verdict
from mesh.telemetry.doctor_cluster import Peer
from sidecar.admin.tables import Document
from sidecar.cli import main, node_facts, peer_checks
from sidecar.cli.doctor import Doctor, EngineAnswer, ask_engine
from sidecar.cli.peer_checks import OtherNode, check_node, clock_skew, connect_fault
from sidecar.config import (
    Address,
    Config,
    Discovery,
    DiscoveryKind,
    Docker,
    EntryPointAddress,
    FeedConfig,
    Http,
    Metrics,
)
from tests.net.lab import Lab, inside, laboratory, needs_root

INFO: Document = {
    "Name": "swarm00",
    "ServerVersion": "26.1.5",
    "Swarm": {
        "LocalNodeState": "active",
        "ControlAvailable": False,
        "NodeAddr": "192.168.2.60",
        "RemoteManagers": [{"Addr": "127.0.0.2:2377"}, {"Addr": "192.168.2.60:2377"}],
    },
}
TOLD = EngineAnswer(INFO, {"abcdefghij": "shop"})
NOWHERE = Address("127.0.0.1", 1)


class Passing(Firewall):
    def __init__(self, fault: str = "", passes: bool = True) -> None:
        self.fault, self.passes = fault, passes

    async def lets_pass(self, sandbox: str, bridge: str) -> bool:
        if self.fault:
            raise KernelError(self.fault)
        return self.passes


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


def by_name(visit: Doctor) -> dict[str, Check]:
    return {one.name: one for one in visit.checks()}


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[int]:
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]


class Metered(BaseHTTPRequestHandler):
    body, date = b"", ""

    def do_GET(self) -> None:
        self.send_response_only(200)
        if self.date:
            self.send_header("Date", self.date)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def metered(body: str, date: str) -> Iterator[int]:
    handler = type("Handler", (Metered,), {"body": body.encode(), "date": date})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


# --- other nodes --------------------------------------------------------------------------------------------


def test_a_port_is_reached_or_it_is_said_why_not() -> None:
    with listening() as port:
        assert connect_fault("127.0.0.1", port) == ""
    assert connect_fault("127.0.0.1", port) == f"127.0.0.1:{port}: Connection refused"


def test_another_nodes_sidecar_tells_version_and_time() -> None:
    text = '# HELP mesh_build_info x\nmesh_build_info{version="1.2.3"} 1.0\n'
    with metered(text, formatdate(4_000_000_000, usegmt=True)) as port:
        version, skew = peer_checks.sidecar_version("127.0.0.1", port)
    assert version == "1.2.3"
    assert skew is not None
    assert skew > 1e8  # a server of the year 2096
    with metered("something else", "") as port:
        assert peer_checks.sidecar_version("127.0.0.1", port) == ("", None)
    assert peer_checks.sidecar_version("127.0.0.1", port) == ("", None)


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        (formatdate(1000, usegmt=True), 0.0),
        (formatdate(1010, usegmt=True), 9.5),
        (formatdate(990, usegmt=True), -10.5),
        ("yesterday", None),
        ("", None),
    ],
)
def test_skew_of_a_date(date: str, skew: float | None) -> None:
    assert clock_skew(date, 1000.5) == skew


def test_of_many_nodes_the_managers_are_looked_at() -> None:
    many = [OtherNode(f"w{n:02}", "") for n in range(peer_checks.PEERS_MAX)]
    found = peer_checks.nodes_to_check([*many, OtherNode("z", "", manager=True)])
    assert (found[0].name, found[-1].name, len(found)) == ("z", "w30", peer_checks.PEERS_MAX)


def test_a_node_that_is_down_is_not_asked() -> None:
    assert check_node(OtherNode("x", "192.0.2.1", manager=True, down=True), 1, 1) == Peer(
        "x", True, down=True
    )


def test_a_worker_is_not_asked_for_what_managers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as port:
        monkeypatch.setattr(peer_checks, "GOSSIP", port)
        found = check_node(OtherNode("w", "127.0.0.1"), 1, 1)
        assert (found.gossip, found.control, found.feed, found.version) == ("", None, None, "")
        monkeypatch.setattr(peer_checks, "CONTROL", port)
        manager = check_node(OtherNode("m", "127.0.0.1", manager=True), port, 1)
        assert (manager.gossip, manager.control, manager.feed) == ("", "", "")


# --- this node ----------------------------------------------------------------------------------------------


def config(tmp_path: Path, **changed: object) -> Config:
    docker = Docker(socket=str(tmp_path / "none"), netns=str(tmp_path), certificates=str(tmp_path))
    return Config(docker=docker, **changed)  # type: ignore[arg-type]


def test_without_docker_what_can_be_checked_is(tmp_path: Path) -> None:
    found = by_name(Doctor(config(tmp_path), NOWHERE))
    assert "no Docker socket" in found["Docker"].seen
    assert found["Docker"].verdict is Verdict.FAIL
    assert found["sidecar"].verdict is Verdict.WARN
    assert "forwarding" not in found  # it would only repeat that Docker is not there
    assert {"kernel features", "IPVS", "file descriptors", "upstream resolvers"} <= found.keys()


def test_a_file_catalogue_needs_no_docker(tmp_path: Path) -> None:
    discovery = Discovery(DiscoveryKind.FILE, "catalog.yml")
    assert "Docker" not in by_name(Doctor(config(tmp_path, discovery=discovery), NOWHERE))


def test_the_engine_that_is_not_there() -> None:
    with pytest.raises(EngineUnavailable):
        ask_engine("/nowhere/docker.sock")


@pytest.mark.root
@needs_root
def test_a_node_without_sidecar_is_judged_by_its_kernel(lab: Lab, tmp_path: Path) -> None:
    gateway, overlay = lab.switch("gw"), lab.switch("over")
    host, sandbox, task = (lab.namespace(name) for name in ("host", "sbox", "task"))
    lab.plug(host, "docker_gwbridge", "172.18.0.1/16", gateway)
    lab.plug(host, "ens33", "192.168.2.60/24", gateway)
    lab.plug(sandbox, "eth1", "172.18.0.2/16", gateway)
    lab.plug(sandbox, "eth0", "10.0.0.2/24", overlay)
    lab.plug(task, "eth0", "10.0.0.3/24", overlay)
    inside(task, "ip", "route", "add", "default", "via", "10.0.0.1")
    names = {"ingress_sbox": sandbox, "0123456789ab": task, "1-abcdefghij": overlay}
    for name, where in names.items():
        (tmp_path / name).symlink_to(str(where.path))
    (tmp_path / "default").touch()  # a file that is no namespace
    inside(host, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    visit = partial(
        Doctor,
        config(tmp_path),
        NOWHERE,
        host=host.path,
        firewall=Passing(),
        ask=lambda _: TOLD,
        names=lambda _: {"0123456789ab": "web.1"},
    )

    found = by_name(visit())
    assert found["forwarding"].seen.startswith("off on eth0, eth1")
    assert found["published ports on 127.0.0.1"].verdict is Verdict.WARN
    assert (found["MTU"].verdict, "takes 1450" in found["MTU"].seen) == (Verdict.FAIL, True)
    assert "network shop" in found["MTU"].seen
    assert found["certificate"].verdict is Verdict.FAIL
    assert found["gossip 7946"].seen.startswith("1 of 1 not reached: 127.0.0.2")
    assert "firewall" not in found  # only a sidecar needs its rule
    assert found["reverse path filter"].verdict is Verdict.OK

    for where in (sandbox, task, host):
        inside(where, "sysctl", "-qw", "net.ipv4.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=1")
    inside(overlay, "ip", "link", "set", "br0", "mtu", "1450")
    inside(host, "sysctl", "-qw", "net.ipv4.conf.docker_gwbridge.route_localnet=1")
    vxlan = host.udp_socket("0.0.0.0", 4789)
    found = by_name(visit())
    assert found["forwarding"].verdict is Verdict.OK
    assert found["published ports on 127.0.0.1"].verdict is Verdict.OK
    assert found["MTU"].seen == "ens33 has 1500, overlays 1450"
    assert f"({os.getpid()})" in found["VXLAN 4789/udp"].seen
    vxlan.close()
    assert found["reverse path filter"].verdict is Verdict.OK  # the task has no way back to be hurt by it
    task.call(lambda: put_in("10.0.0.3", {"02:42:0a:00:00:02": 0x6D650002}, None, {0x6D650002: "10.0.0.2"}))
    assert by_name(visit())["reverse path filter"].verdict is Verdict.OK  # it made its interface loose
    inside(task, "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    strict = by_name(visit())["reverse path filter"]
    assert (strict.verdict, "strict in web.1:" in strict.seen) == (Verdict.FAIL, True)
    assert by_name(visit())["way back to clients"].seen == "prepared in 1 containers"
    inside(task, "nft", "flush", "ruleset")
    lost = by_name(visit())["way back to clients"]
    assert (lost.verdict, "gone in web.1:" in lost.seen) == (Verdict.FAIL, True)


@pytest.mark.root
@needs_root
def test_who_listens_on_a_published_port(lab: Lab) -> None:
    box = lab.namespace("box")

    def seen(protocol: str) -> tuple[bool, str]:
        port: Mapping[str, object] = {
            "published": 80,
            "protocol": protocol,
            "service": "web",
            "mode": "kernel",
            "note": "",
        }
        found = box.call(lambda: node_facts.published_port(port))
        return found.listening, found.holder

    assert seen("tcp") == (False, "")
    listener = box.tcp_listener("0.0.0.0", 80)
    assert seen("tcp")[0] is True
    assert f"({os.getpid()})" in seen("tcp")[1]
    assert seen("udp") == (False, "")
    listener.close()


@pytest.mark.parametrize(
    ("firewall", "verdict"),
    [(Passing(), "ok"), (Passing(passes=False), "fail"), (Passing("no iptables"), "fail")],
)
@pytest.mark.root
@needs_root
def test_with_a_sidecar_its_own_view_is_judged_too(
    running: Address, lab: Lab, tmp_path: Path, firewall: Passing, verdict: str
) -> None:
    gateway = lab.switch("gw")
    host, sandbox = lab.namespace("host"), lab.namespace("sbox")
    lab.plug(host, "docker_gwbridge", "172.18.0.1/16", gateway)
    lab.plug(sandbox, "eth1", "172.18.0.2/16", gateway)
    lab.plug(sandbox, "eth0", "10.0.0.2/24", gateway)
    (tmp_path / "ingress_sbox").symlink_to(str(sandbox.path))
    settings = config(
        tmp_path, feed=FeedConfig(Address("0.0.0.0", 2)), metrics=Metrics(Address("0.0.0.0", 3))
    )
    found = by_name(Doctor(settings, running, host.path, firewall, lambda _: TOLD))
    assert found["firewall"].verdict == verdict
    if verdict == "ok":
        inside(
            host,
            "iptables-nft",
            *["-A", "INPUT", "!", "-s", "198.51.100.0/28", "-p", "tcp", "--dport", "8800", "-j", "DROP"],
        )
        entries = replace(
            settings, http=Http(entrypoints=(EntryPointAddress("web", Address("0.0.0.0", 8800)),))
        )
        named = by_name(Doctor(entries, running, host.path, firewall, lambda _: TOLD))["firewall"]
        assert named.verdict is Verdict.WARN
        rule = "-A INPUT ! -s 198.51.100.0/28 -p tcp -m tcp --dport 8800 -j DROP"
        assert f"'{rule}' keeps some clients" in named.seen
        assert "8800/tcp of entry point web" in named.seen
    assert found["clashing listeners"].verdict is Verdict.FAIL
    assert "nginx (pid 12)" in found["clashing listeners"].seen
    assert found["catalogue"].seen == "confirmed 0 s ago, served to workers"
    assert found["captured containers"].seen == "1, and no fault"
    assert "'fast' is not kernel or proxy" in found["configuration and labels"].seen
    # swarm01 is down, and swarm00 is this node: nobody is left to be asked
    assert found["gossip 7946"].seen == "no other node"
    assert "sidecar" not in found


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_DOCKER_SOCKET", str(tmp_path / "none"))
    assert main.main(["doctor", "--admin", str(NOWHERE)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  Docker " in out
    assert "What to do\n" in out
    assert main.main(["doctor", "--json", "--admin", str(NOWHERE)]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {"name", "verdict", "seen", "remedy"} == set(checks[0])
