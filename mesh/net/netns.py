"""Entering another network namespace: for one call on this thread, or on a thread kept for it.

A socket belongs for ever to the namespace it was created in, so all that is needed in a container's
namespace is to create things there. `setns` is per thread: `Namespace.call` goes in, runs one synchronous
function and comes back before anything else may run on the thread, so the event loop never awaits inside
a foreign namespace. Work that takes longer than creating a socket goes to the `NamespaceWorker`'s thread.
"""

import asyncio
import ctypes
import fcntl
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mesh.errors import KernelError, NamespaceGone
from mesh.net.setns import CLONE_NEWNET, libc, open_own_namespace, setns

T = TypeVar("T")

SIOCGSKNS = 0x894C  # linux/sockios.h: a descriptor of the namespace that a socket belongs to
QUEUE_LIMIT = 64  # jobs handed to the worker's thread and not done; more of them wait as coroutines
NON_BLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)  # one system call less where there is such a flag
LISTEN_BACKLOG = 1024  # the kernel's somaxconn may cut it


class Namespace:
    """A network namespace by its path; `None` is the one we live in (the host's, for the sidecar)."""

    def __init__(self, path: str | None) -> None:
        self.path = path

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` inside, on this thread, and come back whatever happens.

        NamespaceGone when the path no longer leads to a namespace, KernelError when entering is refused.
        """
        if self.path is None:
            return work()
        target = _open(self.path)
        try:
            home = open_own_namespace()
            try:
                _enter(target, self.path)
                try:
                    return work()
                finally:
                    setns(home)
            finally:
                os.close(home)
        finally:
            os.close(target)

    def exists(self) -> bool:
        """Does the path still lead somewhere? Cheap enough to ask every second."""
        return self.path is None or os.path.exists(self.path)

    def udp_socket(self, address: str, port: int = 0, *, shared: bool = False) -> socket.socket:
        """A bound, non-blocking UDP socket inside. Port 0: the kernel chooses. `shared`: SO_REUSEPORT."""
        return self._bound(socket.SOCK_DGRAM, address, port, shared)

    def tcp_listener(self, address: str, port: int = 0, backlog: int = LISTEN_BACKLOG) -> socket.socket:
        """A listening, non-blocking TCP socket inside; of an IPv6 address for IPv6 alone. OSError: address in
        use, for the caller to explain."""
        listener = self._bound(socket.SOCK_STREAM, address, port)
        try:
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
        return listener

    def tcp_socket(self) -> socket.socket:
        """An unconnected, non-blocking TCP socket inside."""
        return self.call(nonblocking_tcp_socket)

    def _bound(self, kind: int, address: str, port: int, shared: bool = False) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self.call(lambda: _socket(kind, family))
        try:
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))  # a socket stays in its namespace, so this needs no second visit
        except OSError:
            made.close()
            raise
        return made


def in_new_namespace(work: Callable[[], T]) -> T:
    """Run `work` in a new, empty network namespace, on a thread that ends with it. Blocks.

    KernelError when none can be made.
    """

    def inside() -> T:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise KernelError(
                f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}; it takes CAP_SYS_ADMIN"
            )
        return work()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mesh-throw-away") as thread:
        return thread.submit(inside).result()


class NamespaceWorker:
    """One thread for work inside namespaces that would hold up the event loop (nft, netlink dumps)."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mesh-namespaces")
        self._room = asyncio.Semaphore(QUEUE_LIMIT)

    async def run(self, path: str | None, work: Callable[[], T]) -> T:
        """Run `work` in the namespace on the worker's thread. Cancelling stops the wait, not the work."""
        async with self._room:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: Namespace(path).call(work)
            )

    def close(self) -> None:
        """Finish what was begun, drop what was not."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def nonblocking_tcp_socket() -> socket.socket:
    """An unconnected one of the namespace that this thread is in."""
    return _socket(socket.SOCK_STREAM)


def nonblocking_udp_socket() -> socket.socket:
    """An unbound, unconnected one of the namespace that this thread is in."""
    return _socket(socket.SOCK_DGRAM)


def namespace_of(sock: socket.socket) -> int:
    """A descriptor of the namespace that the socket belongs to; the caller closes it. KernelError."""
    try:
        return fcntl.ioctl(sock, SIOCGSKNS)
    except OSError as error:
        raise KernelError(f"the network namespace of a socket is not given: {error.strerror}") from error


def _socket(kind: int, family: int = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, kind | NON_BLOCKING)
    if not NON_BLOCKING:
        made.setblocking(False)
    return made


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NamespaceGone(f"network namespace {path} is gone") from error
    except OSError as error:
        raise KernelError(f"cannot open network namespace {path}: {error.strerror}") from error


def _enter(target: int, path: str) -> None:
    try:
        setns(target)
    except PermissionError as error:
        raise KernelError(f"cannot enter {path}: the sidecar needs CAP_SYS_ADMIN") from error
    except OSError as error:
        # A plain file is left behind for a moment after Docker unmounts the namespace.
        raise NamespaceGone(f"{path} is no longer a network namespace ({error.strerror})") from error
