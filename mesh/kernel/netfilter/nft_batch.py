"""Changing a loaded table by nfnetlink batches: one message to the kernel, one answer back.

Beside libnftables, which reads all chains and sets of the namespace before each transaction, 0.4 ms with ten
services and 4 ms with a thousand, to find the objects that we know to be there.
Whole tables go through it all the same: it checks what it is told, and loading takes far longer than reading.

The kernel has answered when `send` returns. It acknowledges the last operation alone, and names each message
that it refuses.
"""

import os
import struct
import threading

from mesh.errors import KernelError
from mesh.kernel.netfilter import nft
from mesh.kernel.netfilter.nfnetlink import batch, owners
from mesh.kernel.netfilter.transaction import Transaction, as_text, line
from mesh.net import netlink
from mesh.net.netns import namespace_of

BATCH_BYTES = 128 * 1024  # the largest; a socket's send buffer takes 208 KiB unless somebody set it lower
QUOTED_OPERATION = 200  # characters of what was refused that an error repeats
SOL_NETLINK, CAP_ACK = 270, 10  # linux/netlink.h: an answer does not repeat the message


class Batches:
    """Batches for the namespace that the creating thread is in, which the open socket holds.

    Two threads may send: the lock keeps their answers apart. It costs no wait that the kernel would not make
    them, which takes one change of a namespace's tables at a time.
    """

    def __init__(self) -> None:
        self._socket = netlink.open_socket(netlink.NETLINK_NETFILTER)
        self._socket.setblocking(False)
        self._socket.setsockopt(SOL_NETLINK, CAP_ACK, 1)
        self._lock = threading.Lock()

    def namespace(self) -> int:
        """A descriptor of the namespace; the caller closes it. KernelError."""
        return namespace_of(self._socket)

    def change(self, transaction: Transaction) -> bool:
        """One transaction. False: too large for a batch, nothing was done. KernelError: refused, and nothing
        of it took effect."""
        if not transaction:
            return True
        packed = batch(transaction)
        if len(packed) > BATCH_BYTES:
            return False
        if (refusal := self.send(packed)) is not None:
            number, reason = refusal
            messages = owners(transaction)
            # Number 0 stands for the batch: each message was right, all of them together are not.
            what = line(messages[number - 1]) if 0 < number <= len(messages) else "the whole"
            raise KernelError(f"nftables refused: {os.strerror(reason)}: {what[:QUOTED_OPERATION]}")
        return True

    def send(self, packed: bytes) -> tuple[int, int] | None:
        """Give the kernel a batch; (number of the message, errno) of what it refuses first."""
        with self._lock:
            try:
                self._socket.send(packed)
                refusal = _refusal(self._socket.recv(netlink.RECEIVE_BYTES))
            except OSError as error:
                self._drain()
                raise KernelError(f"nftables: {error.strerror}") from error
            if refusal is not None:
                self._drain()
            return refusal

    def _drain(self) -> None:
        """A refused batch is answered once per message; none may pass for the answer to the next one."""
        while True:
            try:
                self._socket.recv(netlink.RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # more answers than fit (ENOBUFS): told once, then those that did are read

    def close(self) -> None:
        """May block for tens of milliseconds after a transaction, as `libnftables.Context.close` does."""
        self._socket.close()


def change(transaction: Transaction) -> None:
    """A single one, in the calling thread's namespace."""
    batches = Batches()
    try:
        done = batches.change(transaction)
    finally:
        batches.close()
    if not done:
        nft.run(as_text(transaction))


def _refusal(reply: bytes) -> tuple[int, int] | None:
    for kind, body in netlink.messages(reply):
        if kind == netlink.ERROR and (reason := netlink.error_of(body)):
            # After the errno stands the header of the message it is about.
            (number,) = struct.unpack_from("=I", body, 4 + 8)
            return int(number), reason
    return None
