"""conntrack of the calling thread's namespace: finding flows and ending them. Blocking; see `ctnetlink`."""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from itertools import islice

from mesh.errors import KernelError
from mesh.kernel.ctnetlink import DELETE, GET, NEW, Flow, Wanted, delete_request, dump_request, flow_of
from mesh.net import netlink

FLOWS_MAX = 65_536  # that one look finds; more are found by the next
DELETES_AT_ONCE = 64  # in one message; their answers fit into the socket's buffer


def find(wanted: Wanted) -> list[Flow]:
    """Flows as they are now, FLOWS_MAX at most."""
    with _socket() as sock:
        sock.send(netlink.message(GET, netlink.F_REQUEST | netlink.F_DUMP, 1, dump_request(wanted)))
        return list(islice(filter(wanted.matches, _told(sock)), FLOWS_MAX))


def delete(flows: Iterable[Flow]) -> int:
    """End them: their next packet is a new flow. Returns how many there still were."""
    deleted, waiting = 0, iter(flows)
    with _socket() as sock:
        while batch := list(islice(waiting, DELETES_AT_ONCE)):
            flags = netlink.F_REQUEST | netlink.F_ACK
            sock.send(b"".join(netlink.message(DELETE, flags, 1, delete_request(flow)) for flow in batch))
            deleted += _acknowledged(sock, len(batch))
    return deleted


def _socket() -> socket.socket:
    sock = netlink.open_socket(netlink.NETLINK_NETFILTER)
    sock.settimeout(netlink.REPLY_SECONDS)
    return sock


def _told(sock: socket.socket) -> Iterator[Flow]:
    for kind, body in _answers(sock):
        if kind == netlink.DONE:
            return
        if kind == NEW and (flow := flow_of(body)) is not None:
            yield flow
        elif kind == netlink.ERROR:
            raise _failed(netlink.error_of(body))


def _acknowledged(sock: socket.socket, expected: int) -> int:
    done = 0
    for kind, body in islice(_answers(sock), expected):
        if kind != netlink.ERROR:
            raise KernelError(f"conntrack: an answer of type {kind} to a deletion")
        number = netlink.error_of(body)
        if number not in (0, errno.ENOENT):
            raise _failed(number)
        done += number == 0
    return done


def _answers(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        try:
            data = sock.recv(netlink.RECEIVE_BYTES)
        except OSError as error:
            raise KernelError(f"conntrack: {error}") from error
        yield from netlink.messages(data)


def _failed(number: int) -> KernelError:
    return KernelError(f"conntrack: {os.strerror(number)}")
