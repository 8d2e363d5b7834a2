"""The command line: tables and JSON from a running sidecar; messages and exit codes when things are wrong."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.config import Address, Config
from tests.sidecar.conftest import FakeState

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MESH_"):
            monkeypatch.delenv(name)


def test_services_as_a_table(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["services", "--admin", str(running)]) == 0
    assert capsys.readouterr().out == (
        "SERVICE    MODE    VIPS           PORTS         ENDPOINTS\n"
        "db         dnsrr                                0/0\n"
        "web        vip     shop=10.0.0.2  80->8080/tcp  1/2\n"
    )


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["endpoints", "web"], "web.1.a  swarm00  running  shop=10.0.0.3"),
        (["networks"], "ingress    10.1.0.0/24  overlay   swarm    ingress"),
        (["nodes"], "swarm00  10.10.10.60  manager  active          ready"),
        (["status"], "443/tcp  tls        taken   0/0          nginx (pid 12)"),
    ],
)
def test_views(running: Address, capsys: pytest.CaptureFixture[str], command: list[str], line: str) -> None:
    assert main.main([*command, "--admin", str(running)]) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("command", [["status"], ["services"], ["endpoints", "web"], ["networks"], ["nodes"]])
def test_json_is_what_the_api_says(
    running: Address, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main.main([*command, "--json", "--admin", str(running)]) == 0
    assert json.loads(capsys.readouterr().out)


def test_the_address_may_come_from_the_environment(
    running: Address, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_ADMIN_LISTEN", str(running))
    assert main.main(["nodes"]) == 0
    assert "swarm01" in capsys.readouterr().out


def test_resolve_tells_what_and_why(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["resolve", "web", "--from", "web.1.a", "--admin", str(running)]) == 0
    out = capsys.readouterr().out
    assert "web.1.a on shop" in out
    assert "web.    5      A       10.0.0.2" in out
    assert "Why\nweb is a service on shop" in out
    assert main.main(["resolve", "nope", "--admin", str(running)]) == 1


def test_what_the_api_refuses_is_told(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["endpoints", "no/such", "--admin", str(running)]) == 1
    assert main.main(["resolve", "web", "--from", "x", "--admin", str(running)]) == 1
    assert "mesh: no container 'x' on this node" in capsys.readouterr().err


def test_no_sidecar_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "--admin", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("mesh: no sidecar answers on 127.0.0.1:1: is it running")


def test_a_bad_admin_address_is_a_wrong_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "--admin", "here"]) == 2
    assert "mesh: command line: --admin: must be ADDR:PORT" in capsys.readouterr().err


def test_run_hands_the_configuration_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Config] = []
    monkeypatch.setitem(
        sys.modules,
        "sidecar.lifecycle",
        types.SimpleNamespace(run=lambda settings: given.append(settings) or 0),
    )
    assert main.main(["run", "--catalog", "c.yml", "--dns", "127.0.0.1:5353"]) == 0
    (settings,) = given
    assert settings.discovery.path == "c.yml"
    assert settings.dns.listen == (Address("127.0.0.1", 5353),)


def test_run_with_a_bad_configuration_never_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--metrics", "x", "--admin", "0.0.0.0:1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("left", "code", "err"),
    [((), 0, ""), ((("host", "busy"),), 1, "mesh: host: busy\n")],
    ids=["clean", "left over"],
)
def test_cleanup_tells_what_it_removed_and_what_not(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: tuple[tuple[str, str], ...],
    code: int,
    err: str,
) -> None:
    async def cleanup(netns: str) -> object:
        assert netns == "/n"
        return types.SimpleNamespace(tables=("host", "1-abc"), firewall_rules=1, left=left)

    monkeypatch.setenv("MESH_DOCKER_NETNS", "/n")
    monkeypatch.setitem(sys.modules, "mesh.kernel.cleanup", types.SimpleNamespace(cleanup=cleanup))
    assert main.main(["cleanup"]) == code
    told = capsys.readouterr()
    assert told.out == "removed our table in host\nremoved our table in 1-abc\nremoved firewall rules: 1\n"
    assert told.err == err


def test_wrong_arguments_exit_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["fly"])
    assert ended.value.code == 2


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--version"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.startswith(b"mesh ")


def test_a_closed_pipe_is_nothing_to_talk_about(running: Address) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "services", "--admin", str(running)],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (main.BROKEN_PIPE, b"")


@pytest.mark.parametrize("port", ["80", "80/tcp"])
def test_explain_a_port(running: Address, capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert main.main(["explain", "port", port, "--admin", str(running)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("Port 80/tcp of web, on swarm00: kernel, round_robin WHERE ")
    assert "ingress_sbox:80/tcp dnat to the one task MISSING not loaded yet" in out
    assert "10.1.0.3:8080 100% masqueraded back ok" in out
    assert "Why the client's address is so masqueraded: by label" in out
    assert "web.2.b swarm01 dead its node is down" in out
    assert out.endswith("Notes mind this")


def test_endpoints_that_get_nothing_from_this_node(
    running: Address, state: FakeState, capsys: pytest.CaptureFixture[str]
) -> None:
    state.leaves_out = {
        "10.0.0.3:80": "does not pass its check (timeout)",
        "10.0.0.3:81": "left out for 9 s more",
    }
    assert main.main(["endpoints", "web", "--admin", str(running)]) == 0
    titles, first, *others = capsys.readouterr().out.splitlines()
    assert titles.endswith("FROM THIS NODE")
    assert first.endswith("shop=10.0.0.3  does not pass its check (timeout); left out for 9 s more")
    assert not [line for line in others if "check" in line]


def test_explain_a_service(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["explain", "service", "web", "--admin", str(running)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Network shop: virtual IP 10.0.0.2" in out
    assert "cart dnat DIFFERS it still leads to 10.0.0.9" in out
    assert "3 more not looked at" in out
    assert out.count("its node is down") == 1


def test_explain_http(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["explain", "http", "a", "/x", "--method", "post", "--admin", str(running)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("request POST a/x Entry point web router shop rule Host(`a`) priority 9")
    assert (
        "reached on net ENDPOINT REQUESTS STATE 10.0.1.3:80 2 ok"
        " 10.0.1.5:80 0 does not pass its check (status) 10.0.1.4:80 0 ejected for 3.5 s (503)" in out
    )
    assert out.endswith("Entry point internal answer 404")
    assert main.main(["explain", "http", "nowhere", "--admin", str(running)]) == 1
    assert capsys.readouterr().err == "mesh: there is no entry point (http.entrypoints)\n"


def test_routes(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["routes", "--admin", str(running)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.endswith("web Host(`a`) web 9 StripPrefix web 10.0.1.3:80 10.0.1.4:80")


def test_explain_a_name_is_resolve(running: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["explain", "name", "web", "--from", "web.1.a", "--admin", str(running)]) == 0
    assert "Why\nweb is a service on shop" in capsys.readouterr().out


@pytest.mark.parametrize("subject", [["port", "80"], ["service", "web"]])
def test_explain_for_machines(
    running: Address, capsys: pytest.CaptureFixture[str], subject: list[str]
) -> None:
    assert main.main(["explain", *subject, "--json", "--admin", str(running)]) == 0
    assert "web" in json.dumps(json.loads(capsys.readouterr().out))


def test_what_cannot_be_explained_is_told_with_what_there_is(
    running: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["explain", "port", "81", "--admin", str(running)]) == 1
    assert main.main(["explain", "service", "nope", "--admin", str(running)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "mesh: no service publishes port 81; published are: 80/tcp (web)",
        "mesh: no service 'nope'; there are: web",
    ]


@pytest.mark.parametrize("port", ["0", "65536", "http", "80/icmp", "80/"])
def test_a_wrong_port_is_a_wrong_argument(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["explain", "port", port])
    assert ended.value.code == 2
    assert "argument PORT[/PROTOCOL]:" in capsys.readouterr().err
