"""The other side of an HTTP/2 connection, by the library h2: an implementation that is not ours."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from mesh.balance.policies import Endpoint
from tests.http.conftest import LIMIT, Tasks

List = list[tuple[str, str]]
Handler = Callable[["Peer", "Heard"], Awaitable[None]]

DEFAULTS = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")]


@dataclass
class Heard:
    """What came on one stream."""

    id: int
    fields: List = field(default_factory=list)
    interim: list[List] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: List = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.fields)[":status"])

    def get(self, name: str) -> str:
        return dict(self.fields).get(name, "")


class Peer:
    """A client's or a server's side. It reads all the time, and takes in all unless it is not `taking`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: bool,
        window: int | None = None,
    ) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client, "utf-8"))
        # So that what the library would not say can be said.
        self.h2.config.validate_outbound_headers = False
        self.h2.config.normalize_outbound_headers = False
        if window is not None:
            self.h2.local_settings = h2.settings.Settings(
                client, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            )
        self.reader, self.writer = reader, writer
        self.heard: defaultdict[int, Heard] = defaultdict(lambda: Heard(0))
        self.taking = True  # gives windows back
        self.goaways: list[h2.events.ConnectionTerminated] = []
        self.ended = False
        self.on_request: Callable[[Heard], None] | None = None
        self._changed = asyncio.Event()
        self.h2.initiate_connection()
        self.push()
        self._task = asyncio.create_task(self._read())

    def push(self) -> None:
        if not self.writer.is_closing():
            self.writer.write(self.h2.data_to_send())
            self._changed.set()

    def raw(self, data: bytes) -> None:
        """Past the library."""
        self.writer.write(data)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def over(self) -> None:
        """The connection is."""
        await self.until(lambda: self.ended)

    def ask(
        self,
        *fields: tuple[str, str],
        end: bool = True,
        path: str = "/",
        method: str = "GET",
        authority: str = "a.example",
    ) -> Heard:
        """Begin a request."""
        id_ = self.h2.get_next_available_stream_id()
        heard = self.heard[id_] = Heard(id_)
        given = {":method": method, ":path": path, ":authority": authority}
        self.h2.send_headers(
            id_, [*((name, given.get(name, value)) for name, value in DEFAULTS), *fields], end_stream=end
        )
        self.push()
        return heard

    async def send(self, id_: int, data: bytes, *, end: bool = False) -> None:
        """As the windows allow."""
        while data:
            await self.until(lambda: self.h2.local_flow_control_window(id_) > 0)
            most = min(self.h2.local_flow_control_window(id_), self.h2.max_outbound_frame_size)
            self.h2.send_data(id_, data[:most])
            data = data[most:]
            self.push()
        if end:
            self.h2.end_stream(id_)
            self.push()

    def respond(self, id_: int, *fields: tuple[str, str], status: int = 200, end: bool = False) -> None:
        self.h2.send_headers(id_, [(":status", str(status)), *fields], end_stream=end)
        self.push()

    def trailers(self, id_: int, *fields: tuple[str, str]) -> None:
        self.h2.send_headers(id_, list(fields), end_stream=True)
        self.push()

    def reset(self, id_: int, code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        self.h2.reset_stream(id_, code)
        self.push()

    async def whole(self, heard: Heard) -> Heard:
        """All of a response, or its reset."""
        await self.until(lambda: heard.ended or heard.reset is not None or self.ended)
        return heard

    def give_back(self, heard: Heard) -> None:
        """Take more, after not `taking`."""
        self.h2.increment_flow_control_window(2**20, heard.id)
        self.h2.increment_flow_control_window(2**20)
        self.push()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        self.writer.close()

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._hear(event)
                self.push()
                self._changed.set()
        except (ConnectionError, ssl.SSLError):
            pass
        self.ended = True
        self._changed.set()

    def _hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            heard = self.heard[event.stream_id] = Heard(event.stream_id, _pairs(event.headers))
            if self.on_request is not None:
                self.on_request(heard)
        elif isinstance(event, h2.events.ResponseReceived):
            self.heard[event.stream_id].fields = _pairs(event.headers)
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.heard[event.stream_id].interim.append(_pairs(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.heard[event.stream_id].body += event.data
            if self.taking and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.heard[event.stream_id].trailers = _pairs(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.heard[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.heard[event.stream_id].reset = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append(event)


def _pairs(fields: object) -> List:
    return [(str(name), str(value)) for name, value in fields]  # type: ignore[attr-defined]


async def h2_client(address: tuple[str, int], window: int | None = None) -> Peer:
    """With prior knowledge. `close` it."""
    reader, writer = await asyncio.open_connection(*address)
    return Peer(reader, writer, client=True, window=window)


@dataclass
class H2Tasks(Tasks):
    peers: list[Peer] = field(default_factory=list)
    requests: asyncio.Queue[Heard] = field(default_factory=asyncio.Queue)

    async def asked(self, count: int = 1) -> None:
        """So many requests have come since this was last awaited."""
        async with asyncio.timeout(LIMIT):
            for _ in range(count):
                await self.requests.get()


@asynccontextmanager
async def h2_serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[H2Tasks]:
    """An endpoint on loopback; every request runs the handler."""
    running: set[asyncio.Task[None]] = set()

    async def answer(peer: Peer, heard: Heard) -> None:
        try:
            await handler(peer, heard)
        except (AssertionError, OSError, TimeoutError) as fault:
            tasks.faults.append(fault)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.connections += 1
        peer = Peer(reader, writer, client=False)
        tasks.peers.append(peer)

        def begin(heard: Heard) -> None:
            tasks.requests.put_nowait(heard)
            task = asyncio.create_task(answer(peer, heard))
            running.add(task)
            task.add_done_callback(running.discard)

        peer.on_request = begin

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    tasks = H2Tasks(Endpoint(*server.sockets[0].getsockname()[:2]))
    try:
        yield tasks
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        if running:
            await asyncio.wait(running)
        for peer in tasks.peers:
            await peer.close()
