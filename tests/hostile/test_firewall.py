"""The operator's rules in DOCKER-USER come first, however a port is carried and whenever they were put in."""

import asyncio
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.kernel.cleanup import cleanup
from tests.hostile.firewall_rig import (
    BAD,
    BAD6,
    ENTRY,
    ENTRY_OPEN,
    GOOD,
    GOOD6,
    KERNEL,
    KERNEL_OPEN,
    RELAY,
    RELAY_OPEN,
    TCP_PORTS,
    UDP,
    UDP_OPEN,
    Node,
    Sidecar,
    node,
    run,
)
from tests.net.lab import inside, needs_root
from tests.support.waiting import until

pytestmark = [pytest.mark.root, needs_root]

BACK_SECONDS = 2.0  # within which traffic is back after a reload
SLACK_SECONDS = 3.0  # for a machine that is busy with other tests
LOCALNET = "/proc/sys/net/ipv4/conf/docker_gwbridge/route_localnet"
OPEN = (KERNEL_OPEN, RELAY_OPEN, ENTRY_OPEN)
NOT_IN = "-i ens32 ! -s 198.51.100.0/28 -p tcp -m multiport --dports 80,82,8800 -j DROP"


def backends() -> list[str]:
    return [one for one in ("nft", "legacy") if shutil.which(f"iptables-{one}-save")]


@pytest.fixture(params=backends())
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path, request.param) as made:
        yield made


async def serving(box: Node) -> None:
    """All that is open answers, over IPv4."""
    for port in (*TCP_PORTS, *OPEN):
        await box.back(port)


async def closed(box: Node, ports: tuple[int, ...] = TCP_PORTS, source: str = BAD) -> None:
    """And what is open is open for the same client at the same time."""
    beside = dict(zip(TCP_PORTS, OPEN, strict=True))
    for port in ports:
        assert not await box.is_reached(port, source), f"{port} answers {source}"
        assert await box.is_reached(beside[port], source), f"{beside[port]} does not answer {source}"
        assert await box.is_reached(port, GOOD6 if ":" in source else GOOD), f"{port} is closed for all"


def test_a_rule_from_before_and_one_put_in_later(box: Node) -> None:
    box.operator(f"-I DOCKER-USER {NOT_IN}")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await closed(box)
        box.operator(f"-D DOCKER-USER {NOT_IN}")
        for port in TCP_PORTS:
            assert await box.is_reached(port)
        box.operator("-D DOCKER-USER -j RETURN")  # Docker 28 has none, so that -A is of use
        box.operator(f"-A DOCKER-USER {NOT_IN}")
        await closed(box)
        await sidecar.stop()

    run(box, work)
    assert "mesh" not in box.rules().lower()


def test_rules_by_the_original_port_and_exceptions_before_a_drop(box: Node) -> None:
    """As ufw-docker and Docker's own documentation have them."""
    for rule in (
        "-I DOCKER-USER -i ens32 -j DROP",
        f"-I DOCKER-USER -s {GOOD} -j RETURN",
        "-I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
    ):
        box.operator(rule)
    for port in OPEN:
        box.operator(f"-I DOCKER-USER -p tcp -m conntrack --ctorigdstport {port} -j RETURN")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await closed(box)
        for port in TCP_PORTS:
            box.operator(
                f"-I DOCKER-USER -p tcp -m conntrack --ctorigdstport {port} --ctdir ORIGINAL -j RETURN"
            )
            assert await box.is_reached(port)
        await sidecar.stop()

    run(box, work)


def test_datagrams_that_are_relayed_are_tracked_so_that_rules_can_tell_them(box: Node) -> None:
    dgram = socket.SOCK_DGRAM

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await box.back(UDP, kind=dgram)
        for match in (f"--dport {UDP}", f"-m conntrack --ctorigdstport {UDP} --ctstate NEW,ESTABLISHED"):
            box.operator(f"-I DOCKER-USER ! -s {GOOD} -p udp {match} -j DROP")
            assert not await box.is_reached(UDP, BAD, dgram), match
            assert await box.is_reached(UDP_OPEN, BAD, dgram)
            assert await box.is_reached(UDP, GOOD, dgram)
            box.operator(f"-D DOCKER-USER ! -s {GOOD} -p udp {match} -j DROP")
            assert await box.is_reached(UDP, BAD, dgram)
        await sidecar.stop()

    run(box, work)


class Hammering:
    """A client who may not come in tries all the time; one answer is one too many."""

    def __init__(self, box: Node, source: str = BAD) -> None:
        self._box, self._source = box, source
        self.tries = 0

    async def __aenter__(self) -> "Hammering":
        self._ends = asyncio.Event()
        self._task = asyncio.gather(*(self._try(port) for port in TCP_PORTS))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends.set()
        await self._task

    async def _try(self, port: int) -> None:
        while not self._ends.is_set():
            assert not await self._box.is_reached(port, self._source), f"{port} answered {self._source}"
            self.tries += 1


def saved(box: Node) -> str:
    """The rules as the operator keeps them in a file: Docker's, theirs, and nothing of ours."""
    text = box.iptables("-S")
    lines = [line for line in text.splitlines() if "mesh" not in line.lower()]
    chains = [f":{line.split()[1]} - [0:0]" for line in lines if line.startswith("-N ")]
    chains += [f":{line.split()[1]} {line.split()[2]} [0:0]" for line in lines if line.startswith("-P ")]
    rules = [line for line in lines if line.startswith("-A ")]
    return "\n".join(["*filter", *chains, *rules, "COMMIT", ""])


def test_never_a_moment_without_the_rule_while_firewalls_are_reloaded(box: Node) -> None:
    box.operator(f"-I DOCKER-USER {NOT_IN}")
    took = []

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        file = saved(box)
        async with Hammering(box) as hammering:
            for reload in (lambda: box.restore(file), box.docker_again, lambda: box.restore(file)):
                await asyncio.to_thread(reload)
                took.extend([await box.back(port) for port in TCP_PORTS])
                await serving(box)
        assert hammering.tries
        await closed(box)
        await sidecar.stop()

    run(box, work)
    assert max(took) < BACK_SECONDS + SLACK_SECONDS


def test_never_a_moment_without_the_rule_while_the_sidecar_is_replaced(box: Node) -> None:
    box.operator(f"-I DOCKER-USER {NOT_IN}")

    async def work() -> None:
        async with Hammering(box):
            for leave in (True, False, True):
                sidecar = Sidecar(box)
                await sidecar.start()
                await serving(box)
                await sidecar.stop(leave=leave)
                if leave:
                    await box.back(KERNEL)
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await closed(box)
        await sidecar.stop()

    run(box, work)
    assert "mesh" not in box.rules().lower()


def test_rules_that_are_flushed_are_back_and_the_operators_next_ones_are_heeded(box: Node) -> None:
    took = []

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        file = saved(box)
        flushes = [lambda: box.operator("-F")]
        if box.backend == "nft":
            flushes.append(lambda: box.flush_ruleset())
        for flush in flushes:
            flush()
            took.extend([await box.back(port, BAD) for port in (*TCP_PORTS, *OPEN)])
            box.restore(file)
            box.operator(f"-I DOCKER-USER {NOT_IN}")
            await serving(box)
            await closed(box)
        await sidecar.stop()

    run(box, work)
    assert max(took) < BACK_SECONDS + SLACK_SECONDS


def test_over_ipv6_only_where_there_is_a_chain_to_ask(box: Node) -> None:
    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        for port in (KERNEL, RELAY):
            assert not await box.is_reached(port, GOOD6), "there is no IPv6 DOCKER-USER"
        box.docker(6)
        rule = "-i ens32 ! -s 2001:db8::/124 -p tcp -m multiport --dports 80,82 -j DROP"
        for port in (KERNEL, RELAY):
            await box.back(port, BAD6)
        box.operator(f"-I DOCKER-USER {rule}", 6)
        await closed(box, (KERNEL, RELAY), BAD6)
        box.operator(f"-D DOCKER-USER {rule}", 6)
        for port in (KERNEL, RELAY):
            await box.back(port, BAD6)
        await sidecar.stop()

    run(box, work)
    assert "mesh" not in box.rules().lower()


def test_over_ipv6_without_a_chain_where_the_configuration_says_so(box: Node) -> None:
    async def work() -> None:
        sidecar = Sidecar(box, ipv6=True)
        await sidecar.start()
        assert await box.is_reached(RELAY, BAD6)
        assert await box.is_reached(KERNEL, GOOD6)
        await sidecar.stop()

    run(box, work)


def test_what_cannot_be_asked_is_closed_until_it_can(box: Node) -> None:
    """Somebody has put a rule in that lets everything in ahead of ours: it is put behind ours again."""
    box.operator(f"-I DOCKER-USER {NOT_IN}")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        async with Hammering(box):
            box.operator("-I INPUT -j ACCEPT")
            await serving(box)
        first = box.iptables("-S", "INPUT").splitlines()[1]
        assert "MESH-INPUT" in first
        await sidecar.stop()

    run(box, work)


def test_an_input_policy_of_the_operators_stays_in_force(box: Node) -> None:
    box.operator("-A INPUT -p tcp --dport 82 -j DROP")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        for port in (KERNEL, RELAY_OPEN, ENTRY):
            await box.back(port)
        assert not await box.is_reached(RELAY, GOOD)
        await sidecar.stop()

    run(box, work)


def test_no_container_reaches_127_0_0_1_although_published_ports_answer_there(box: Node) -> None:
    """A container with NET_RAW on the bridge sends to 127.0.0.1 by way of the gateway."""

    async def work() -> None:
        sidecar, attacker = Sidecar(box), box.container()

        async def reached(address: str, port: int) -> bool:
            return await asyncio.to_thread(box.connects, attacker, address, port)

        with (
            socket.create_server(("127.0.0.1", 9181)),
            socket.create_server(("127.0.0.1", 9182)),
            socket.create_server(("172.18.0.1", 9190)),
        ):
            inside(box.host, "sh", "-c", f"echo 1 > {LOCALNET}")
            assert await reached("127.0.0.1", 9182), "this is how it would be done"
            inside(box.host, "sh", "-c", f"echo 0 > {LOCALNET}")
            await sidecar.start()
            await box.back(KERNEL)
            assert await asyncio.to_thread(lambda: box.asked_locally(KERNEL))
            assert inside(box.host, "cat", LOCALNET).strip() == "1"
            for _ in ("as it is", "after somebody has taken the table out"):
                assert await reached("172.18.0.1", 9190)
                assert not await reached("127.0.0.1", 9181)
                assert not await reached("127.0.0.1", 9182)
                inside(box.host, "nft", "delete", "table", "ip", "mesh_loopback")
                await until(lambda: "mesh_loopback" in box.rules(), "it is loaded again")
        await sidecar.stop()

    run(box, work)
    assert inside(box.host, "cat", LOCALNET).strip() == "0", "what made it dangerous is off again"


def test_a_client_that_goes_on_sending_is_the_kernels_when_the_relay_is_gone(box: Node) -> None:
    """What relayed datagrams are tracked in ends with the relay."""

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        with box.datagrams() as client:
            assert await asyncio.to_thread(box.answered, client, UDP)
            await sidecar.ingress.carry_all()
            await sidecar.stop(leave=True)
            answers = [await asyncio.to_thread(box.answered, client, UDP) for _ in range(3)]
            assert answers[-1], "the kernel answers the same client"
        last = Sidecar(box)
        await last.start()
        await last.stop()

    run(box, work)


def test_what_an_older_sidecar_put_ahead_of_the_operators_rules_goes(box: Node) -> None:
    box.operator(f"-I DOCKER-USER {NOT_IN}")
    older = (
        "-d 172.18.0.2/32 -o docker_gwbridge -m conntrack --ctstate DNAT -m comment --comment mesh -j ACCEPT"
    )
    box.operator(f"-I DOCKER-USER {older}")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await until(lambda: "ACCEPT" not in box.iptables("-S", "DOCKER-USER"), "the older rule is gone")
        await closed(box)
        await sidecar.stop()

    run(box, work)


@pytest.mark.skipif(len(backends()) < 2, reason="only one back end of iptables is installed")
def test_both_back_ends_are_asked_where_both_have_docker_user(box: Node) -> None:
    """Docker was moved from one to the other, and the operator's rules stayed."""
    other = "legacy" if box.backend == "nft" else "nft"
    for rule in ("-N DOCKER-USER", "-I FORWARD -j DOCKER-USER", f"-A DOCKER-USER {NOT_IN}"):
        inside(box.host, f"iptables-{other}", *rule.split())

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await closed(box)
        inside(box.host, f"iptables-{other}", *f"-D DOCKER-USER {NOT_IN}".split())
        for port in TCP_PORTS:
            assert await box.is_reached(port)
        await sidecar.stop()

    run(box, work)
    assert "mesh" not in box.rules().lower()


def test_cleanup_takes_everything_out(box: Node) -> None:
    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await sidecar.stop(leave=True)
        assert "mesh" in box.rules().lower()
        removed = await cleanup(str(box.folder))
        assert removed.clean
        assert removed.firewall_rules == 3  # two jumps from FORWARD, one from INPUT

    run(box, work)
    assert "mesh" not in box.rules().lower()
    assert inside(box.host, "cat", LOCALNET).strip() == "0"


@pytest.mark.parametrize("box", ["nft"], indirect=True)
def test_rules_that_only_nft_can_write_are_heeded_as_well(box: Node) -> None:
    """After them iptables shows nothing of the whole table any more."""
    rule = 'iifname "ens32" ip saddr != 198.51.100.0/28 tcp dport { 80, 82, 8800 } drop'
    inside(box.host, "nft", f"insert rule ip filter DOCKER-USER {rule}")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await closed(box)
        async with Hammering(box):
            for _ in range(2):
                box.docker_again()
                await serving(box)
        box.operator("-I INPUT -j ACCEPT")
        first = r"type filter hook input[^\n]*\n\s*meta mark[^\n]*jump MESH-INPUT"
        await until(lambda: re.search(first, box.rules()), "ours is first again")
        await closed(box)
        await sidecar.stop()

    run(box, work)
    assert "mesh" not in box.rules().lower()
