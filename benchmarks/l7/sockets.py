"""WebSockets from both sides: an application that sends back what it gets, and a thousand clients of it.

python -m benchmarks.l7.sockets serve PORT
python -m benchmarks.l7.sockets load PORT SOCKETS SECONDS

Both speak as little of the protocol as it takes: the handshake (RFC 6455 section 4), then frames as they
come. Each client has one message of 64 bytes under way. The load says how many came back, once all are open.
"""

import asyncio
import base64
import hashlib
import os
import sys
from typing import cast

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MESSAGE = 64  # bytes
OPEN_SECONDS = 20.0  # for all to be open
AT_ONCE = 50  # that open at the same time
FRAME = bytes((0x82, 0x80 | MESSAGE)) + os.urandom(4) + bytes(MESSAGE)  # binary, masked
HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


class Echo(asyncio.Protocol):
    """What comes after the handshake goes back."""

    def __init__(self) -> None:
        self._head = b""
        self._open = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it

    def data_received(self, data: bytes) -> None:
        if self._open:
            self._transport.write(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        key = next(
            line.split(b":", 1)[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        self._open = True
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + rest
        )


class Client(asyncio.Protocol):
    """One message after the other, from `go` on."""

    def __init__(self, opened: asyncio.Event) -> None:
        self._opened = opened
        self._head = b""
        self._got = 0
        self._going = False
        self.messages = 0
        self.lost = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        if not self._going:
            self._head += data
            if self._head.startswith(b"HTTP/1.1 101") and self._head.endswith(b"\r\n\r\n"):
                self._opened.set()
            return
        self._got += len(data)
        while self._got >= len(FRAME):
            self._got -= len(FRAME)
            self.messages += 1
            self._transport.write(FRAME)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def go(self) -> None:
        self._going = True
        self._transport.write(FRAME)


async def load(port: int, count: int, seconds: float) -> None:
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)

    async def opened() -> Client:
        async with room:
            done = asyncio.Event()
            _, client = await loop.create_connection(lambda: Client(done), "127.0.0.1", port)
            await done.wait()
            return client

    async with asyncio.timeout(OPEN_SECONDS):
        clients = await asyncio.gather(*(opened() for _ in range(count)))
    print("open", flush=True)  # who measures reads what they cost, and says when to go
    await loop.run_in_executor(None, sys.stdin.readline)
    for client in clients:
        client.go()
    await asyncio.sleep(seconds)
    alive = [client for client in clients if not client.lost]
    print(f"{sum(client.messages for client in clients)} messages over {len(alive)} sockets", flush=True)
    os._exit(0)  # a thousand connections need not be closed one by one


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve(int(sys.argv[2])))
    else:
        uvloop.run(load(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
