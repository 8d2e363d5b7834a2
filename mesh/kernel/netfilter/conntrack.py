"""conntrack of the calling thread's namespace: finding flows and ending them. Blocking; see `ctnetlink`.

To find flows the kernel walks its table, which all namespaces share: with 262,144 buckets that takes
some 13 ms however few flows are there or wanted. So one look finds the flows of any number of tasks, and a
namespace without flows is not walked.
"""

import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

from mesh.errors import KernelError
from mesh.kernel.netfilter.ctnetlink import (
    DELETE,
    GET,
    NEW,
    STATISTICS,
    Flow,
    FlowMatch,
    answers_from,
    delete_request,
    dump_request,
    entries,
    flow_of,
    port_in_use,
    statistics_request,
)
from mesh.net import netlink

FLOWS_MAX = 65_536  # that one look finds; more are found by the next
DELETES_AT_ONCE = 64  # in one message; their answers fit into the socket's buffer

COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")  # of the calling thread's namespace
PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_SCTP: "sctp"}


def count() -> int:
    """How many flows there are, without a walk.

    From the file where there is one: after a load of rules, closing a netlink socket takes 10 ms
    (`libnftables.Context.close`), and a container that has just been captured has no flows.
    """
    try:
        return int(COUNT.read_text())
    except (OSError, ValueError):  # no such module as a file, or not mounted here
        return _count_by_netlink()


def _count_by_netlink() -> int:
    with _socket() as sock:
        sock.send(netlink.message(STATISTICS, netlink.F_REQUEST, 1, statistics_request()))
        for kind, body in _answers(sock):
            if kind == STATISTICS:
                return entries(body)
            raise _failed(netlink.error_of(body))
    return 0


def find(wanted: FlowMatch) -> list[Flow]:
    """Flows as they are now, FLOWS_MAX at most."""
    return _find(wanted, wanted.matches)


def find_led(tasks: Collection[str], fit: Callable[[Flow], bool]) -> list[Flow]:
    """Flows that are led to any of these addresses and `fit`, FLOWS_MAX at most."""
    packed = frozenset(map(socket.inet_aton, tasks))
    wanted = (
        FlowMatch(answers_from=next(iter(tasks))) if len(tasks) == 1 else FlowMatch()
    )  # the kernel finds one
    return _find(wanted, lambda flow: flow.led and fit(flow), lambda body: answers_from(body) in packed)


def count_open(destination: str) -> Counter[str]:
    """Port ("80/tcp") → connections to it that are open now, of FLOWS_MAX flows to the address at most."""
    packed = socket.inet_aton(destination)
    with _socket() as sock:
        request = dump_request(FlowMatch(destination=destination))
        sock.send(netlink.message(GET, netlink.F_REQUEST | netlink.F_DUMP, 1, request))
        found = Counter(port_in_use(body, packed) for body in islice(_told(sock), FLOWS_MAX))
    return Counter(
        {f"{used[1]}/{PROTOCOLS[used[0]]}": n for used, n in found.items() if used and used[0] in PROTOCOLS}
    )


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


def _find(
    wanted: FlowMatch, fit: Callable[[Flow], bool], likely: Callable[[bytes], bool] = lambda _: True
) -> list[Flow]:
    """`likely` looks at a flow before it is read in full."""
    with _socket() as sock:
        sock.send(netlink.message(GET, netlink.F_REQUEST | netlink.F_DUMP, 1, dump_request(wanted)))
        told = (flow_of(body) for body in _told(sock) if likely(body))
        return list(islice((flow for flow in told if flow is not None and fit(flow)), FLOWS_MAX))


def _told(sock: socket.socket) -> Iterator[bytes]:
    for kind, body in _answers(sock):
        if kind == netlink.DONE:
            return
        if kind == NEW:
            yield body
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
