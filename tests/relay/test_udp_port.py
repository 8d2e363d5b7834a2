"""A relayed UDP port as its clients and tasks see it, on loopback, under asyncio and uvloop."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

import pytest

from mesh.balance.policies import Endpoint, Policy
from mesh.net.bound_listener import PortTaken
from mesh.relay import udp_port as udp_module
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.udp_port import UdpPort, listen_udp
from tests.net.lab import needs_root
from tests.support.waiting import until

MakeTask: TypeAlias = "Callable[..., Task]"
MakePort: TypeAlias = "Callable[..., UdpPort]"
MakeClient: TypeAlias = "Callable[..., Client]"

LONGEST = 65_507  # what IPv4 leaves of 65,535


def bound(address: str, port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made


class Task:
    """Answers each datagram with its name and the datagram; keeps who sent it."""

    def __init__(self, address: str, port: int = 0, silent: bool = False) -> None:
        self.sock = bound(address, port)
        self.endpoint = Endpoint(*self.sock.getsockname()[:2])
        self.senders: list[tuple[str, int]] = []
        self.silent = silent
        self._name = address.encode()
        asyncio.get_running_loop().add_reader(self.sock, self._serve)

    def _serve(self) -> None:
        data, sender = self.sock.recvfrom(65_535)
        self.senders.append(sender)
        if not self.silent:
            self.sock.sendto(self._name + b" " + data if len(data) < 1000 else data, sender)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.sock)
            self.sock.close()


class Client:
    """One address and port, which stays the same."""

    def __init__(self, port: UdpPort, to: str = "127.0.0.1", source: str = "127.0.0.1") -> None:
        self.sock = bound(source)
        self._to = (to, port.address[1])

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self._to)

    async def answer(self) -> bytes:
        async with asyncio.timeout(20):
            data, sender = await asyncio.get_running_loop().run_in_executor(None, self._receive)
        assert sender == self._to  # from where it was sent to, whatever addresses there are
        return data

    def _receive(self) -> tuple[bytes, tuple[str, int]]:
        self.sock.settimeout(20)
        return self.sock.recvfrom(65_535)

    async def ask(self, data: bytes) -> bytes:
        self.send(data)
        return await self.answer()


@pytest.fixture
async def task() -> AsyncIterator[Callable[..., Task]]:
    made: list[Task] = []

    def make(address: str, port: int = 0, silent: bool = False) -> Task:
        made.append(Task(address, port, silent))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
async def port() -> AsyncIterator[Callable[..., UdpPort]]:
    made: list[UdpPort] = []

    def make(*endpoints: Endpoint, listen: str = "0.0.0.0", **options: object) -> UdpPort:
        made.append(UdpPort(listen_udp(listen, 0), endpoints, RelayOptions(**options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(*args: object) -> Client:
        made.append(Client(*args))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.sock.close()


async def test_clients_go_to_tasks_in_turn_and_each_stays_with_its_own(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    relayed = port(task("127.0.0.2").endpoint, task("127.0.0.3").endpoint)
    first, second = client(relayed), client(relayed)
    assert await first.ask(b"a") == b"127.0.0.2 a"
    assert await second.ask(b"b") == b"127.0.0.3 b"
    assert await first.ask(b"c") == b"127.0.0.2 c"
    stats = relayed.stats
    assert (stats.connections, stats.active, stats.received, stats.sent) == (2, 2, 3, 33)
    assert not stats.errors
    assert [one.active for one in relayed.seen()] == [1, 1]


async def test_a_reply_leaves_from_the_address_that_was_asked(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    relayed = port(task("127.0.0.2").endpoint)
    assert await client(relayed, "127.0.0.9").ask(b"x") == b"127.0.0.2 x"
    assert await client(relayed, "127.0.0.8").ask(b"x") == b"127.0.0.2 x"


async def test_the_longest_and_the_empty_datagram_go_whole(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    relayed = port(task("127.0.0.2").endpoint)
    one = client(relayed)
    longest = bytes(i % 251 for i in range(LONGEST))
    assert await one.ask(longest) == longest
    assert await one.ask(b"") == b"127.0.0.2 "


async def test_source_hash_keeps_an_address_with_its_task(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    tasks = [task(f"127.0.0.{n}").endpoint for n in range(2, 6)]
    relayed = port(*tasks, policy=Policy.SOURCE_HASH)
    by_source = {
        source: {await client(relayed, "127.0.0.1", source).ask(b"") for _ in range(4)}
        for source in (f"127.0.1.{n}" for n in range(8))
    }
    assert all(len(names) == 1 for names in by_source.values())
    assert len(set().union(*by_source.values())) > 1


@pytest.mark.parametrize("policy", [Policy.LEAST_CONN, Policy.P2C])
async def test_the_task_with_fewer_sessions_is_next(
    task: MakeTask, port: MakePort, client: MakeClient, policy: Policy
) -> None:
    first, second = task("127.0.0.2"), task("127.0.0.3")
    relayed = port(first.endpoint, policy=policy)
    for _ in range(3):
        await client(relayed).ask(b"")
    relayed.update_endpoints([first.endpoint, second.endpoint])
    assert {await client(relayed).ask(b"") for _ in range(3)} == {b"127.0.0.3 "}


async def test_a_task_that_leaves_has_its_clients_led_elsewhere(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    first, second = task("127.0.0.2"), task("127.0.0.3")
    relayed = port(first.endpoint)
    one = client(relayed)
    assert await one.ask(b"1") == b"127.0.0.2 1"
    relayed.update_endpoints([second.endpoint])
    first.sock.sendto(b"late", first.senders[0])  # the one that leaves may finish what it was asked
    assert await one.answer() == b"late"
    assert await one.ask(b"2") == b"127.0.0.3 2"
    assert relayed.stats.connections == 1


async def test_what_left_has_the_drain_time(task: MakeTask, port: MakePort, client: MakeClient) -> None:
    first, second = task("127.0.0.2"), task("127.0.0.3")
    relayed = port(first.endpoint, drain=0.05)
    await client(relayed).ask(b"1")
    relayed.update_endpoints([second.endpoint])
    await until(lambda: relayed.stats.active == 0)


async def test_a_task_that_refuses_loses_its_clients_at_once(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    first, second = task("127.0.0.2"), task("127.0.0.3")
    relayed = port(first.endpoint, second.endpoint)
    one = client(relayed)
    assert await one.ask(b"1") == b"127.0.0.2 1"
    first.close()
    one.send(b"lost")  # the kernel says only afterwards that nobody listens
    await until(lambda: relayed.stats.errors["refused"] > 0)
    assert await one.ask(b"2") == b"127.0.0.3 2"
    assert await one.ask(b"3") == b"127.0.0.3 3"


async def test_the_only_task_is_asked_again_when_it_is_back(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    first = task("127.0.0.2")
    relayed = port(first.endpoint)
    one = client(relayed)
    await one.ask(b"1")
    first.close()
    one.send(b"lost")
    await until(lambda: relayed.stats.errors["refused"] > 0)
    task("127.0.0.2", first.endpoint.port)
    assert await one.ask(b"2") == b"127.0.0.2 2"


async def test_without_a_task_a_datagram_is_counted_and_a_later_one_served(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    relayed = port()
    one = client(relayed)
    one.send(b"lost")
    await until(lambda: relayed.stats.errors["no_endpoint"] == 1)
    relayed.update_endpoints([task("127.0.0.2").endpoint])
    assert await one.ask(b"1") == b"127.0.0.2 1"


async def test_silent_sessions_end_unanswered_ones_sooner(
    task: MakeTask, port: MakePort, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_module, "UNANSWERED_SECONDS", 0.1)
    loud, silent = task("127.0.0.2"), task("127.0.0.3", silent=True)
    relayed = port(loud.endpoint, silent.endpoint)
    await client(relayed).ask(b"1")
    client(relayed).send(b"2")
    await until(lambda: relayed.stats.connections == 2 and relayed.stats.active == 1)
    assert [one.active for one in relayed.seen()] == [1, 0]
    relayed.update_endpoints(relayed.endpoints, RelayOptions(idle_timeout=0.1))
    short = port(loud.endpoint, idle_timeout=0.1)
    await client(short).ask(b"1")
    await until(lambda: short.stats.active == 0)


async def test_a_flood_of_clients_takes_no_room_of_those_who_are_answered(
    task: MakeTask, port: MakePort, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_module, "MAX_SESSIONS", 8)
    one_task = task("127.0.0.2")
    relayed = port(one_task.endpoint)
    served = client(relayed)
    await served.ask(b"1")
    one_task.silent = True
    for _ in range(50):
        client(relayed).send(b"flood")
    await until(lambda: relayed.stats.connections == 51)
    assert relayed.stats.active == 8
    assert relayed.stats.errors["full"] == 43
    await until(lambda: len(one_task.senders) == 51)
    one_task.silent = False
    assert await served.ask(b"2") == b"127.0.0.2 2"
    assert await client(relayed).ask(b"new") == b"127.0.0.2 new"


async def test_when_all_are_answered_a_further_client_is_refused(
    task: MakeTask, port: MakePort, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_module, "MAX_SESSIONS", 2)
    relayed = port(task("127.0.0.2").endpoint)
    first, second = client(relayed), client(relayed)
    await first.ask(b""), await second.ask(b"")
    client(relayed).send(b"too many")
    await until(lambda: relayed.stats.errors["full"] == 1)
    assert relayed.stats.active == 2
    assert await first.ask(b"x") == b"127.0.0.2 x"


async def test_closing_lets_answers_arrive_and_takes_nobody_new(
    task: MakeTask, port: MakePort, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_module, "QUIET_SECONDS", 20.0)
    slow = task("127.0.0.2", silent=True)
    relayed = port(slow.endpoint)
    one, late = client(relayed), client(relayed)
    one.send(b"1")
    await until(lambda: len(slow.senders) == 1)
    closing = asyncio.ensure_future(relayed.close(20))
    await asyncio.sleep(0)
    late.send(b"2")
    slow.sock.sendto(b"at last", slow.senders[0])
    assert await one.answer() == b"at last"
    relayed.update_endpoints(relayed.endpoints, RelayOptions(drain=0.01))
    relayed.update_endpoints([])  # its task leaves: nobody is left to wait for
    await closing
    assert (relayed.stats.connections, relayed.stats.active) == (1, 0)


async def test_closing_waits_for_nobody_who_has_fallen_silent(
    task: MakeTask, port: MakePort, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_module, "QUIET_SECONDS", 0.1)
    relayed = port(task("127.0.0.2").endpoint)
    for _ in range(3):
        await client(relayed).ask(b"x")
    await relayed.close(3600)
    assert (relayed.stats.active, relayed.stats.errors["drained"]) == (0, 0)


async def test_out_of_descriptors_is_counted_and_gets_over(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    endpoint = task("127.0.0.2").endpoint
    fail = True

    def connect() -> socket.socket:
        if fail:
            raise OSError(24, "too many open files")
        return udp_module.plain_udp_socket()

    relayed = UdpPort(listen_udp("127.0.0.1", 0), [endpoint], RelayOptions(), connect)
    one = client(relayed)
    one.send(b"1")
    await until(lambda: relayed.stats.errors["fd_limit"] == 1)
    fail = False
    assert await one.ask(b"2") == b"127.0.0.2 2"
    await relayed.close()


def test_a_taken_port_is_named() -> None:
    with bound("127.0.0.1") as taken:
        number = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{number}/udp"):
            listen_udp("127.0.0.1", number)


@pytest.mark.root
@needs_root
async def test_an_invented_sender_that_cannot_be_answered_harms_nobody(
    task: MakeTask, port: MakePort, client: MakeClient
) -> None:
    relayed = port(task("127.0.0.2").endpoint)
    body = b"?"
    spoofed = struct.pack("!HHHH", 0, relayed.address[1], 8 + len(body), 0) + body  # from port 0, no checksum
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.sendto(spoofed, ("127.0.0.1", 0))
    await until(lambda: relayed.stats.errors["other"] == 1)
    assert await client(relayed).ask(b"x") == b"127.0.0.2 x"


async def test_an_error_that_is_no_refusal_leaves_the_session_hearing(
    task: MakeTask, port: MakePort, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any error will do; a refusal is the one that can be had on loopback, so it is taken for another."""
    monkeypatch.setattr(udp_module, "_NOT_THERE", ())
    one = task("127.0.0.1")
    relayed = port(one.endpoint)
    asking = client(relayed)
    assert await asking.ask(b"first") == b"127.0.0.1 first"
    session = one.senders[0]
    one.close()
    for _ in range(3):  # an error that the loop sees, and one that the next send takes before it
        before = sum(relayed.stats.errors.values())
        asking.send(b"lost")
        await until(
            lambda before=before: sum(relayed.stats.errors.values()) > before, "the refusal is counted"
        )
    back = task("127.0.0.1", one.endpoint.port)
    back.sock.sendto(b"by itself", session)
    assert await asking.answer() == b"by itself"
