"""TLS that is passed on by the name it asks for: to a TCP router's tasks, beside HTTP on the same port."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from mesh.balance.policies import Endpoint
from mesh.catalog.model import Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.http import limits
from mesh.http.downstream.entry_points import EntryPoints
from mesh.http.labels.passthrough import read_tcp_labels
from mesh.http.routing.passthrough import TlsPassthrough
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.tasks import Tasks as Running
from mesh.relay.tcp_port import plain_socket
from tests.http.conftest import LIMIT, NET, STACK, Conversation, Stand, Tasks, routed, saying
from tests.http.tls.test_certificate_store import in_one_file, presented
from tests.support.waiting import until

ROUTER, SERVICE = "traefik.tcp.routers", "traefik.tcp.services"


def passed(rule: str, port: int, name: str = "db", **more: str) -> dict[str, str]:
    labels = {
        f"{ROUTER}.{name}.rule": rule,
        f"{ROUTER}.{name}.entrypoints": "websecure",
        f"{ROUTER}.{name}.tls.passthrough": "true",
        f"{SERVICE}.{name}.loadbalancer.server.port": str(port),
    }
    return labels | {f"{ROUTER}.{name}.{option}": value for option, value in more.items()}


class Secure:
    """An entry point with TLS of our own, for HTTP and what is passed on."""

    def __init__(self, stand: Stand, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        in_one_file(folder, "ours.pem", "ours.example")
        self.certificates = TlsCertificates(str(folder))
        self.certificates.refresh()
        self.snapshot = Snapshot().apply(Change(networks={NET.id: NET}))
        reach = OwnNamespace(plain_socket)
        self.site = RequestRouter(stand.core, reach, (EntryPoint("websecure", tls=True),))
        self.passing = TlsPassthrough(stand.core, reach, ["websecure"], self.site.ownership)
        self.site.start(self.snapshot)
        self.passing.start(self.snapshot)
        tasks = Running(lambda _name, error: None)
        self.entries = EntryPoints(
            tasks,
            stand.core,
            self.site,
            [("websecure", "127.0.0.1", 0)],
            lambda _: False,
            lambda _: self.certificates.context,
            self.passing,
        )
        self.entries.start()
        stack.push_async_callback(tasks.close)
        stack.push_async_callback(self.passing.close, 0.0)
        stack.push_async_callback(self.entries.close)
        self._stack = stack

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.entries.status()[0].address.split(":")
        return host, int(port)

    def put(self, id_: str, labels: dict[str, str], *tasks: Tasks) -> None:
        running = tuple(
            Task(f"{id_}.{i}", f"{id_}.{i}", "here", TaskState.RUNNING, {NET.id: one.endpoint.address})
            for i, one in enumerate(tasks)
        )
        service = Service(id_, id_, networks=(ServiceNetwork(NET.id),), labels=labels, tasks=running)
        change = Change(services={id_: service})
        old, self.snapshot = self.snapshot, self.snapshot.apply(change)
        for subscriber in (self.site, self.passing):
            subscriber.update(old, self.snapshot, change)

    async def application(self, text: str, *names: str) -> Tasks:
        """One that ends its TLS itself."""
        in_one_file(self.folder, f"{text}.task", *names)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / f"{text}.task")

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                await saying(text)(Conversation(reader, writer))
            writer.close()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
        self._stack.callback(server.close)
        return Tasks(Endpoint(*server.sockets[0].getsockname()[:2]))

    async def get(self, name: str) -> tuple[str, list[str]]:
        """The body, and the names in the certificate that is shown."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(*self.address, ssl=context, server_hostname=name), LIMIT
        )
        one = Conversation(reader, writer)
        await one.say(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")
        found = presented(one)
        _, _, body = await one.response()
        one.close()
        return body.decode(), found


@pytest.fixture
async def secure(stand: Stand, tmp_path: Path) -> AsyncIterator[Secure]:
    async with AsyncExitStack() as stack:
        yield Secure(stand, tmp_path, stack)


async def test_names_lead_to_their_tasks_and_the_others_to_http(secure: Secure, stand: Stand) -> None:
    web = await stand.endpoint(saying("http"))
    db = await secure.application("db", "db.example")
    secure.put("web", routed("web", "Host(`ours.example`)", web.endpoint.port), web)
    assert (await secure.get("ours.example"))[0] == "http /"
    secure.put("db", passed("HostSNI(`db.example`) || HostSNI(`*.db.example`)", db.endpoint.port), db)
    assert await secure.get("db.example") == ("db /", ["db.example"])
    assert await secure.get("a.db.example") == ("db /", ["db.example"])
    assert await secure.get("ours.example") == ("http /", ["ours.example"])
    ((router, entries, relaying),) = secure.passing.routers()
    assert (router.name, entries) == ("db", ("websecure",))
    assert relaying is not None
    assert relaying.stats.connections == 2


async def test_any_other_name(secure: Secure, stand: Stand) -> None:
    web = await stand.endpoint(saying("http"))
    rest = await secure.application("rest", "rest.example")
    secure.put("web", routed("web", "Host(`ours.example`)", web.endpoint.port), web)
    secure.put("rest", passed("HostSNI(`*`)", rest.endpoint.port, "rest"), rest)
    assert (await secure.get("whatever.example"))[0] == "rest /"
    assert (await secure.get("ours.example"))[0] == "http /"
    secure.put("rest", {})
    assert "no_route" in (await secure.get("whatever.example"))[0]


async def test_changes_leave_open_connections_alone(secure: Secure) -> None:
    db = await secure.application("db", "db.example")
    secure.put("db", passed("HostSNI(`db.example`)", db.endpoint.port), db)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(*secure.address, ssl=context, server_hostname="db.example")
    one = Conversation(reader, writer)
    await one.request()
    assert (await one.response())[2] == b"db /"
    secure.put("db", passed("HostSNI(`other.example`)", db.endpoint.port), db)
    await one.request()
    assert (await one.response())[2] == b"db /"
    assert (await secure.get("other.example"))[0] == "db /"
    one.close()


async def test_passed_on_ones_count_for_their_address(stand: Stand, tmp_path: Path) -> None:
    stand.core.per_address = 2
    async with AsyncExitStack() as stack:
        secure = Secure(stand, tmp_path, stack)
        db = await secure.application("db", "db.example")
        secure.put("db", passed("HostSNI(`db.example`)", db.endpoint.port), db)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        first, second = [
            Conversation(
                *await asyncio.open_connection(*secure.address, ssl=context, server_hostname="db.example")
            )
            for _ in range(2)
        ]
        with pytest.raises(ConnectionResetError):
            await secure.get("db.example")
        first.close()
        ((_, _, relaying),) = secure.passing.routers()
        assert relaying is not None
        await until(lambda: relaying.active == 1)
        assert (await secure.get("db.example"))[0] == "db /"
        second.close()
        await until(lambda: relaying.active == 0)
        # One that reaches no task is over as well.
        secure.put("db", passed("HostSNI(`db.example`)", 1))
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                await secure.get("db.example")
        ((_, _, nobody),) = secure.passing.routers()
        assert nobody is not None
        assert nobody.stats.connections == 3


async def test_nobody_there_is_a_reset(secure: Secure) -> None:
    secure.put("db", passed("HostSNI(`db.example`)", 1))
    with pytest.raises(ConnectionResetError):
        await secure.get("db.example")


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the end, in order or not."""
    try:
        return await asyncio.wait_for(reader.read(), LIMIT)
    except ConnectionResetError:
        return b""


async def test_who_says_nothing_is_let_go(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.1)
    db = await secure.application("db", "db.example")
    secure.put("db", passed("HostSNI(`db.example`)", db.endpoint.port), db)
    for said in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
        reader, writer = await asyncio.open_connection(*secure.address)
        writer.write(said)
        assert await ended(reader) == b""
        writer.close()
    assert (await secure.get("db.example"))[0] == "db /"


async def test_who_speaks_no_tls_is_told_by_the_handshake(secure: Secure) -> None:
    db = await secure.application("db", "db.example")
    secure.put("db", passed("HostSNI(`db.example`)", db.endpoint.port), db)
    reader, writer = await asyncio.open_connection(*secure.address)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    got = await ended(reader)
    assert got[:1] in (b"", b"\x15")  # an alert
    writer.close()


LABELS = [
    ({f"{ROUTER}.a.middlewares": "x"}, "keeps others out"),
    ({f"{ROUTER}.a.rule": "ClientIP(`10.0.0.1`)"}, "only HostSNI"),
    ({f"{ROUTER}.a.rule": "HostSNI(`a b`)"}, "only HostSNI"),
    ({f"{ROUTER}.a.tls.passthrough": "false"}, "only with tls.passthrough=true"),
    ({f"{ROUTER}.a.tls.passthrough": "maybe"}, "neither true nor false"),
    ({f"{SERVICE}.a.loadbalancer.server.port": "x"}, "not supported here"),
    ({f"{ROUTER}.a.nonsense": "x"}, "unknown option"),
    ({f"{ROUTER}.a.service": "other"}, "there is no service 'other'"),
    ({f"{ROUTER}.a.entrypoints": "web"}, "no entry point 'web' with TLS"),
    ({"traefik.tcp.x.y.z": "1"}, "unknown label"),
    ({f"{ROUTER}.a.priority": "3"}, "is not followed"),
]


@pytest.mark.parametrize(("labels", "told"), LABELS)
async def test_what_is_not_followed_is_told(secure: Secure, labels: dict[str, str], told: str) -> None:
    secure.put("a", passed("HostSNI(`a.example`)", 1, "a") | labels)
    assert any(told in problem.message for problem in secure.passing.problems())


async def test_two_that_want_one_name(secure: Secure) -> None:
    secure.put("a", passed("HostSNI(`x.example`)", 1, "a") | STACK)
    secure.put("b", passed("HostSNI(`x.example`)", 1, "b") | STACK)
    secure.put("c", passed("HostSNI(`y.example`)", 1, "a") | STACK)
    told = [(problem.file, problem.key) for problem in secure.passing.problems()]
    assert ("c", f"{ROUTER}.a") in told
    assert ("c", f"{SERVICE}.a") in told
    assert ("b", f"{ROUTER}.b.rule") in told
    assert len(told) == 3


def test_labels_as_values() -> None:
    labels = passed("HostSNI(`A.example`)", 8443) | {
        f"{SERVICE}.db.loadbalancer.proxyprotocol.version": "2",
        "traefik.swarm.network": "shop",
    }
    found = read_tcp_labels(Service("db", "db", labels=labels))
    assert not found.problems
    assert found.routers["db"].names == ("a.example",)
    service = found.services["db"]
    assert (service.port, service.proxy_protocol, service.network) == (8443, "v2", "shop")
