"""The floor: datagrams in, the same datagrams out, through ours' two system calls and no look-up in between.

python -m benchmarks.echo PORT

What ours costs above it is the price of an answer; what a server in this language can save is no more.
"""

import asyncio
import socket
import sys

import uvloop

from mesh.dns.mmsg import SIZE_STEP, Batch
from mesh.net.netns import Namespace

FLAGS = 2  # where in a message the first byte of its flags is
RESPONSE = 0x81  # QR and RD: so that the load generator takes it for a reply


async def echo(port: int) -> None:
    udp = Namespace(None).udp_socket("127.0.0.1", port)
    fd, batch = udp.fileno(), Batch(socket.AF_INET)

    def drain() -> None:
        count = batch.receive(fd)
        data, sizes = batch.data, batch.sizes
        for index, at, length in zip(range(count), batch.starts, batch.lengths, strict=False):
            data[at + FLAGS] = RESPONSE
            sizes[index * SIZE_STEP] = length
        sent = 0
        while sent < count:
            sent += batch.send(fd, sent, count)

    asyncio.get_running_loop().add_reader(fd, drain)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(echo(int(sys.argv[1])))
