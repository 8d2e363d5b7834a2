"""Noticing that somebody has changed the host's firewall: at once, not when it is next looked at.

The nft back end tells by itself: each transaction is reported to the netlink group of nftables, ours among
them, so only those count that touch a filter table or have taken out a table of ours. The legacy back end
tells nobody; its table has a size and entry points, read each second with one system call. And every ten
seconds all of it is looked at without a reason.
"""

import asyncio
import ctypes
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

from mesh.errors import KernelError
from mesh.kernel.firewall.filter_table import Family
from mesh.kernel.firewall.iptables import legacy_in_use
from mesh.net import netlink
from mesh.net.backoff import Backoff
from mesh.net.netns import Namespace
from mesh.net.readers import watch_again
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # between two looks without a reason
LEGACY_SECONDS = 1.0  # between two looks at the legacy table's size
PAUSE_SECONDS = (
    0.25  # after each look: while Docker changes rules in a row, as few looks as a second's promise takes
)
MESSAGES_AT_ONCE = 64  # read before other work has its turn
RECEIVE_BUFFER = 1 << 20  # bytes of notifications; what does not fit is told as "more than fits" (ENOBUFS)

# linux/netlink.h, linux/netfilter/nfnetlink.h, nf_tables.h
NFTABLES_GROUP = 7
SUBSYSTEM = 10
NEW_TABLE, DELETE_TABLE, NEW_GENERATION = 0, 2, 15
RULES = frozenset(
    (NEW_TABLE, DELETE_TABLE, 3, 5, 6, 8)
)  # tables, chains and rules come or go; not sets' elements
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
OUR_TABLES = ("mesh", "mesh_listeners", "mesh_loopback")
FILTERS = frozenset(("ip filter", "ip6 filter"))

# linux/netfilter_ipv4/ip_tables.h: IPT_SO_GET_INFO answers struct ipt_getinfo; ip6_tables.h the same.
GET_INFO, INFO = 64, struct.Struct("32sI5I5III")

# Told the tables that are gone ("ip mesh"). True: look again in a second, something could not be put right.
Changed = Callable[[frozenset[str]], Awaitable[bool]]


class FirewallWatch:
    """Calls `changed` when rules of the host's filter tables, or whole tables, have changed; one call at a
    time, the next one not before the last has ended."""

    def __init__(self, tasks: Tasks, changed: Changed, namespace: str | None = None) -> None:
        self._changed = changed
        self._namespace = namespace
        self._socket: socket.socket | None = None
        self._pending: dict[str, int] = {}  # table → the last that happened to it in this transaction
        self._gone: set[str] = set()
        self._missed = False
        self._legacy: object = None
        self._due = 0.0  # loop time of the next look without a reason
        self._reconciler = Reconciler(
            tasks,
            "firewall-watch",
            self._work,
            backoff=Backoff(LEGACY_SECONDS, LEGACY_SECONDS),
            interval=LEGACY_SECONDS,
            on_interval=self._on_interval,
            rest=PAUSE_SECONDS,
        )

    def start(self) -> None:
        try:
            self._socket = Namespace(self._namespace).call(_subscribed)
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        except (KernelError, OSError) as error:
            logger.warning("changes of the firewall are noticed after %.0f s only: %s", LEGACY_SECONDS, error)
        self._legacy = self._legacy_size()
        self._due = asyncio.get_running_loop().time() + LOOK_SECONDS
        self._reconciler.start()

    async def close(self) -> None:
        await self._reconciler.close()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _on_interval(self) -> bool:
        """Is a look due? The legacy back end has changed, or the last look is LOOK_SECONDS ago, or changes of
        the nft back end are not reported here at all."""
        late = asyncio.get_running_loop().time() >= self._due
        return late or self._socket is None or self._legacy_size() != self._legacy

    async def _work(self) -> bool:
        """One look. False: something could not be put right, so another is due soon."""
        gone, self._gone = frozenset(self._gone), set()
        again = await self._changed(gone)
        self._due = asyncio.get_running_loop().time() + LOOK_SECONDS
        self._legacy = self._legacy_size()
        return not again

    # --- the nft back end's notifications ---

    def _read(self) -> None:
        if self._socket is None:
            return
        for _ in range(MESSAGES_AT_ONCE):
            try:
                data = self._socket.recv(netlink.RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: there was more than fits
                watch_again(asyncio.get_running_loop(), self._socket, self._read)
                self._gone |= {f"{family} {name}" for family in FAMILIES.values() for name in OUR_TABLES}
                self._reconciler.wake()
                continue
            if not data:
                return
            for kind, table in events(data):
                self._take(kind, table)

    def _take(self, kind: int, table: str) -> None:
        if kind != NEW_GENERATION:
            if kind in RULES:
                self._pending[table] = kind
            return
        pending, self._pending = self._pending, {}
        gone = {name for name, last in pending.items() if last == DELETE_TABLE}
        if gone or not FILTERS.isdisjoint(pending):
            self._gone |= gone
            self._reconciler.wake()

    # --- the legacy back end's size ---

    def _legacy_size(self) -> object:
        return [
            Namespace(self._namespace).call(lambda one=family: _table_info(one))  # type: ignore[misc]
            for family in Family
            if legacy_in_use(family, self._namespace)
        ]


def events(data: bytes) -> Iterator[tuple[int, str]]:
    """(kind of message, table) of what nftables reports; the table is "" where there is none. Pure."""
    for kind, body in netlink.messages(data):
        if kind >> 8 != SUBSYSTEM or len(body) < 4:
            continue
        name = netlink.attributes(body[4:]).get(1, b"").rstrip(b"\0").decode(errors="replace")
        yield kind & 0xFF, f"{FAMILIES.get(body[0], body[0])} {name}" if kind & 0xFF != NEW_GENERATION else ""


def _subscribed() -> socket.socket:
    made = netlink.open_socket(netlink.NETLINK_NETFILTER)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        made.bind((0, 1 << (NFTABLES_GROUP - 1)))
    except OSError:
        made.close()
        raise
    return made


def _table_info(family: Family) -> bytes:
    """Number of entries, their size and where each hook begins; b"" when the kernel does not tell. (Python's
    own getsockopt cannot pass the table's name in.)"""
    kind, level = (
        (socket.AF_INET, socket.SOL_IP) if family is Family.IPV4 else (socket.AF_INET6, socket.IPPROTO_IPV6)
    )
    told = ctypes.create_string_buffer(b"filter", INFO.size)
    length = ctypes.c_uint32(INFO.size)
    with socket.socket(kind, socket.SOCK_DGRAM) as asked:
        failed = _LIBC.getsockopt(asked.fileno(), level, GET_INFO, told, ctypes.byref(length))
    return b"" if failed else told.raw


_LIBC = ctypes.CDLL(None, use_errno=True)
