"""Many UDP datagrams with one system call: recvmmsg(2) and sendmmsg(2), through ctypes.

Strategy: the array of message headers that brings queries in takes the replies out again. The kernel has left
each asker's address (and, where asked for, our own address that it used) in its header, so a reply is the
query's slot written over behind the id, and its length. Nothing is allocated for a datagram, and one set of
buffers serves all sockets of a family: a loop is done with a batch before it looks at the next socket.

`WORDS` are 32 bits. Offsets come from the C structures, so nothing here depends on the size of a pointer.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from mesh.dns.config import UDP_BATCH, UDP_SLOT

# Where a reply goes: the asker's address, and the control message that makes it leave from the asked one.
Destination: TypeAlias = tuple[tuple[str, int] | tuple[str, int, int, int], list[tuple[int, int, bytes]]]

CONTROL = 64  # bytes of room for one control message: IP_PKTINFO takes 28, IPV6_PKTINFO 36
_NAME = 28  # sockaddr_in6, the longer one
_WORD = 4
IPV6_RECVPKTINFO, IPV6_PKTINFO, IP_PKTINFO = 49, 50, 8  # linux/in6.h, linux/in.h


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    _fields_ = (("message", _MessageHeader), ("length", ctypes.c_uint32))


class _Arrays(ctypes.Structure):
    """Headers and vectors in one block, so that one copy makes all of them ready again."""

    _fields_ = (("headers", _Header * UDP_BATCH), ("vectors", _IoVec * UDP_BATCH))


_LIBC = ctypes.CDLL(None, use_errno=True)
_AVAILABLE = sys.platform == "linux" and hasattr(_LIBC, "recvmmsg") and hasattr(_LIBC, "sendmmsg")
if _AVAILABLE:
    _CALL = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)  # fd, headers, how many, flags
    _LIBC.recvmmsg.argtypes = (*_CALL, ctypes.c_void_p)
    _LIBC.sendmmsg.argtypes = _CALL
_HEADER_WORDS = ctypes.sizeof(_Header) // _WORD
_HEADER_SIZES = ctypes.sizeof(_Header) // ctypes.sizeof(ctypes.c_size_t)
_LENGTH_WORD = _Header.length.offset // _WORD
_CONTROL_LENGTH = _Header.message.offset + _MessageHeader.control_length.offset
_VECTOR_LENGTH = (_Arrays.vectors.offset + _IoVec.length.offset) // ctypes.sizeof(ctypes.c_size_t)
SIZE_STEP = ctypes.sizeof(_IoVec) // ctypes.sizeof(ctypes.c_size_t)  # items of `Batch.sizes` for one datagram
_CONTROL_HEADER = struct.Struct("@Nii")  # cmsghdr: length with the header, level, type
_INTERFACE = _CONTROL_HEADER.size  # where in an IP_PKTINFO message the interface's index is
_ANY_INTERFACE = bytes(_WORD)  # in a reply: the route decides, only the address is given


def available() -> bool:
    """Does this system have the two calls? (Linux; both of its C libraries.)"""
    return _AVAILABLE


class Batch:
    """Room for `UDP_BATCH` datagrams of one address family.

    After `receive`, datagram `i` is `data[starts[i] : starts[i] + lengths[i]]`. Before `send`, its reply
    stands there and `sizes[i * SIZE_STEP]` is the reply's length.
    """

    def __init__(self, family: int) -> None:
        self._family = family
        self._room = bytearray(UDP_BATCH * UDP_SLOT)
        self._names = bytearray(UDP_BATCH * _NAME)
        self._controls = bytearray(UDP_BATCH * CONTROL)
        self._arrays = _Arrays()
        self._link()
        block = memoryview(self._arrays).cast("B")
        self._block, self._fresh = block, bytes(block)
        self._lengths = block[: ctypes.sizeof(_Header) * UDP_BATCH].cast("I")
        self._control_lengths = block[_CONTROL_LENGTH : ctypes.sizeof(_Arrays)].cast("P")
        self._name_words = memoryview(self._names).cast("I")
        self.sizes: memoryview[int] = block.cast("P")[_VECTOR_LENGTH:]
        self.data = memoryview(self._room)
        self.starts = tuple(range(0, UDP_BATCH * UDP_SLOT, UDP_SLOT))
        self.lengths: list[int] = []
        first = ctypes.addressof(self._arrays)
        self._headers = tuple(first + i * ctypes.sizeof(_Header) for i in range(UDP_BATCH))

    def _link(self) -> None:
        rooms = [
            ctypes.addressof(ctypes.c_char.from_buffer(area))
            for area in (self._room, self._names, self._controls)
        ]
        for i in range(UDP_BATCH):
            vector = self._arrays.vectors[i]
            vector.base, vector.length = rooms[0] + i * UDP_SLOT, UDP_SLOT
            message = self._arrays.headers[i].message
            message.name, message.name_length = rooms[1] + i * _NAME, _NAME
            message.vectors, message.vector_count = ctypes.addressof(vector), 1
            message.control, message.control_length = rooms[2] + i * CONTROL, CONTROL

    def receive(self, fd: int, most: int = UDP_BATCH) -> int:
        """Take what has arrived, `most` at a time. Returns how many, 0 when nothing has; never waits.

        Raises OSError.
        """
        self._block[:] = self._fresh
        count: int = _LIBC.recvmmsg(fd, self._headers[0], most, socket.MSG_DONTWAIT, None)
        if count < 0:
            return _nothing(ctypes.get_errno())
        self.lengths = self._lengths[_LENGTH_WORD : count * _HEADER_WORDS : _HEADER_WORDS].tolist()
        if self._control_lengths[0] and self._family == socket.AF_INET:
            for at in range(_INTERFACE, count * CONTROL, CONTROL):
                self._controls[at : at + _WORD] = _ANY_INTERFACE
        return count

    def send(self, fd: int, first: int, end: int) -> int:
        """Send replies `first` up to `end`; returns how many went. 0: the first could not. Raises OSError."""
        count: int = _LIBC.sendmmsg(fd, self._headers[first], end - first, socket.MSG_DONTWAIT)
        if count < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return count

    def sources(self, count: int) -> list[int] | list[bytes]:
        """Who asked, as keys: equal for equal addresses of this family."""
        if self._family == socket.AF_INET:
            return self._name_words[1 : count * _NAME // _WORD : _NAME // _WORD].tolist()
        return [bytes(self._names[at + 8 : at + 24]) for at in range(0, count * _NAME, _NAME)]

    def source(self, index: int) -> str:
        """The same as text; IPv4 as such also where it comes in by an IPv6 socket."""
        at = index * _NAME
        if self._family == socket.AF_INET:
            return str(IPv4Address(bytes(self._names[at + 4 : at + 8])))
        address = IPv6Address(bytes(self._names[at + 8 : at + 24]))
        return str(address.ipv4_mapped or address)

    def destination(self, index: int) -> Destination:
        """Where a reply to datagram `index` goes that is sent later."""
        at = index * _NAME
        port = int.from_bytes(self._names[at + 2 : at + 4])
        if self._family == socket.AF_INET:
            return (self.source(index), port), self._control(index)
        host = str(IPv6Address(bytes(self._names[at + 8 : at + 24])))
        scope = int.from_bytes(self._names[at + 24 : at + 28], sys.byteorder)
        return (host, port, 0, scope), self._control(index)

    def _control(self, index: int) -> list[tuple[int, int, bytes]]:
        if not self._control_lengths[index * _HEADER_SIZES]:
            return []
        at = index * CONTROL
        size, level, kind = _CONTROL_HEADER.unpack_from(self._controls, at)
        return [(level, kind, bytes(self._controls[at + _CONTROL_HEADER.size : at + size]))]


def _nothing(code: int) -> int:
    if code in (errno.EAGAIN, errno.EINTR):
        return 0
    raise OSError(code, os.strerror(code))


def tell_own_address(udp: socket.socket) -> None:
    """Have each datagram say which of our addresses it was sent to, so that its reply leaves from there.

    For sockets bound to a wildcard address: the kernel would choose by the route back, and stub resolvers
    drop replies from another address than they asked.
    """
    if udp.family == socket.AF_INET:
        udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
