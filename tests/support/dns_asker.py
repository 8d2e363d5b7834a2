"""Sends DNS messages from wherever it is started, and prints what comes back. Standard library only.

Runs inside a container's network namespace (`nsenter --net=… python3 dns_asker.py`) and asks 127.0.0.11.
Reads a JSON line per question, in any number and without waiting for answers:
`{"id": any, "wire": hex of the message, "tcp": bool, "port": int, "seconds": how long to wait}`;
prints one per question, in the order in which they are settled:
`{"id": any, "reply": hex of the message or null}`.
"""

import asyncio
import json
import sys
from typing import Any

ADDRESS = "127.0.0.11"
STARTED_MAX = 4  # questions without an answer; a burst would overflow the upstream, and look like silence
STARTED_FOR = 0.1  # seconds; a question older than that is probably met with silence, and the next may start
LINE_MAX = 1 << 18  # bytes; a message of 65,535 as hex fits twice


class _First(asyncio.DatagramProtocol):
    """The first datagram, or that the kernel says nobody is there."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if not self.reply.done():
            self.reply.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


async def _ask_udp(wire: bytes, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(_First, remote_addr=(ADDRESS, port))
    try:
        transport.sendto(wire)
        return await protocol.reply
    finally:
        transport.close()


async def _ask_tcp(wire: bytes, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    try:
        writer.write(len(wire).to_bytes(2, "big") + wire)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.transport.abort()


async def _settle(question: dict[str, Any]) -> None:
    ask = _ask_tcp if question["tcp"] else _ask_udp
    try:
        async with asyncio.timeout(question["seconds"]):
            reply = await ask(bytes.fromhex(question["wire"]), question["port"])
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        reply = None
    told = {"id": question["id"], "reply": None if reply is None else reply.hex()}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Until standard input ends and every question is settled."""
    lines = asyncio.StreamReader(limit=LINE_MAX)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async with asyncio.TaskGroup() as settling:
        started: set[asyncio.Task[None]] = set()
        while line := await lines.readline():
            started.add(settling.create_task(_settle(json.loads(line))))
            if len(started) >= STARTED_MAX:
                done, _ = await asyncio.wait(
                    started, timeout=STARTED_FOR, return_when=asyncio.FIRST_COMPLETED
                )
                started = started - done if done else set()


if __name__ == "__main__":
    asyncio.run(main())
