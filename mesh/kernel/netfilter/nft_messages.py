"""The messages between `nft` and `nft_process`, over a pair of stream sockets. Blocking.

A message is a status, a length and so many bytes. A request's bytes are the text for nftables, and the
descriptor of the namespace comes with its first byte (SCM_RIGHTS). An answer's bytes are the output, or why
there is none. Each request is answered by one message.
"""

import array
import os
import socket
import struct
from contextlib import suppress
from enum import IntEnum

from mesh.errors import WireError

HEAD = struct.Struct("!BI")  # status, length
MESSAGE_MAX = 32 * 1024 * 1024  # bytes; the rules of 65,535 published ports take 22 MB
READ_BYTES = 262_144  # at a time
_RIGHTS_ROOM = socket.CMSG_SPACE(array.array("i").itemsize)


class NftStatus(IntEnum):
    REQUEST = 0
    DONE = 1
    REFUSED = 2  # by nftables, or by the kernel


def send(pair: socket.socket, status: NftStatus, body: bytes, descriptor: int | None = None) -> None:
    """The caller keeps its descriptor. OSError when the other end is gone; WireError: too large to send."""
    if len(body) > MESSAGE_MAX:
        raise WireError(f"{len(body)} bytes are more than a message holds ({MESSAGE_MAX})")
    rights = []
    if descriptor is not None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    head = HEAD.pack(status, len(body))
    sent = pair.sendmsg([head], rights)
    pair.sendall(head[sent:])
    pair.sendall(body)


def receive(pair: socket.socket) -> tuple[NftStatus, bytes, int | None]:
    """The next message, and the descriptor that came along, which is the caller's. EOFError: the other end is
    gone. WireError: this is no message of ours."""
    head, rights, flags, _ = pair.recvmsg(1, _RIGHTS_ROOM, socket.MSG_CMSG_CLOEXEC)
    came = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            came.frombytes(data[: len(data) - len(data) % came.itemsize])
    try:
        if flags & socket.MSG_CTRUNC or len(came) > 1:
            raise WireError("a descriptor too many, or none left to take it")
        status, length = HEAD.unpack(head + _exactly(pair, HEAD.size - 1) if head else _end())
        if length > MESSAGE_MAX or status not in tuple(NftStatus):
            raise WireError(f"status {status} and {length} bytes")
        return NftStatus(status), _exactly(pair, length), came[0] if came else None
    except BaseException:
        for one in came:
            with suppress(OSError):
                os.close(one)
        raise


def _exactly(pair: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        received += pair.recv(min(length - len(received), READ_BYTES)) or _end()
    return bytes(received)


def _end() -> bytes:
    raise EOFError("the other end is gone")
