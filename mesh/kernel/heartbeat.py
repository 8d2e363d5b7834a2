"""Keeping a table's `alive` set alive: the fail-open switch of everything we redirect.

Redirects match only while the set's elements have not timed out; whoever lives refreshes them. A beat is one
prebuilt nfnetlink batch on a socket that stays bound to its namespace: no setns, no parsing, no libnftables
(tens of microseconds, so hundreds of containers cost about a percent of a core). It runs on the event loop on
purpose: a loop that hangs must let its redirects expire.

The batch is add, delete, add. Adding an existing element does not re-arm its timeout (seen on 6.18, and the
nftables wiki says so of older kernels); deleting one that has just expired fails; so it is first made
to exist, then replaced, in one transaction that no packet can see half done.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable

from mesh.errors import KernelError
from mesh.kernel.rules import ALIVE_PROTOCOLS, ALIVE_SET, TABLE
from mesh.net import netlink
from mesh.net.netns import Namespace

BEAT_SECONDS = 1.0  # a third of rules.ALIVE_SECONDS: two beats may be late

SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
BATCH_BEGIN, BATCH_END = 16, 17
NEW_ELEMENT, DELETE_ELEMENT = SUBSYSTEM | 12, SUBSYSTEM | 14
F_CREATE = 0x400


class Heartbeat:
    """The beat of one namespace's table. The open socket holds the namespace: close it when it ends."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.call(lambda: netlink.open_socket(netlink.NETLINK_NETFILTER))
        self._socket.setblocking(False)

    def beat(self) -> None:
        """Re-arm. KernelError when the table or its set is missing (somebody flushed the ruleset)."""
        try:
            self._socket.send(BATCH)
            reply = self._socket.recv(netlink.RECEIVE_BYTES)  # the kernel has answered when send returns
        except OSError as error:
            raise KernelError(f"heartbeat: {error.strerror}") from error
        for kind, body in netlink.messages(reply):
            if kind == netlink.ERROR and (number := netlink.error_of(body)):
                self._drain()
                raise KernelError(f"heartbeat: {errno.errorcode.get(number, number)} {os.strerror(number)}")

    def _drain(self) -> None:
        """A refused batch answers once per message; none of it may pass for the answer to the next beat."""
        try:
            while self._socket.recv(netlink.RECEIVE_BYTES):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        self._socket.close()


def _elements(kind: int, flags: int, sequence: int, keys: Iterable[int]) -> bytes:
    """NEWSETELEM or DELSETELEM for the alive set (linux/netfilter/nf_tables.h)."""
    elements = b"".join(_element(key) for key in keys)
    body = (
        _generic(socket.AF_INET, 0)
        + netlink.attribute(1, TABLE.encode() + b"\0")
        + netlink.attribute(2, ALIVE_SET.encode() + b"\0")
        + netlink.attribute(3 | netlink.NESTED, elements)
    )
    return netlink.message(kind, netlink.F_REQUEST | flags, sequence, body)


def _element(key: int) -> bytes:
    value = netlink.attribute(1 | netlink.NESTED, netlink.attribute(1, bytes([key])))
    return netlink.attribute(1 | netlink.NESTED, value)


def _generic(family: int, resource: int) -> bytes:
    return struct.pack("!BBH", family, 0, resource)


def _batch() -> bytes:
    keys = ALIVE_PROTOCOLS.values()
    return b"".join(
        (
            netlink.message(BATCH_BEGIN, netlink.F_REQUEST, 0, _generic(0, 10)),
            _elements(NEW_ELEMENT, F_CREATE, 1, keys),
            _elements(DELETE_ELEMENT, 0, 2, keys),
            _elements(NEW_ELEMENT, F_CREATE | netlink.F_ACK, 3, keys),
            netlink.message(BATCH_END, netlink.F_REQUEST, 4, _generic(0, 10)),
        )
    )


BATCH = _batch()
