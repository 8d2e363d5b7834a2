"""setns(2): the calling thread enters a network namespace. Imports no asyncio, for small processes."""

import ctypes
import os
from collections.abc import Callable

CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = "/proc/thread-self/ns/net"

libc = ctypes.CDLL(None, use_errno=True)


def _setns_libc(descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _setns_os(descriptor: int) -> None:
    os.setns(descriptor, CLONE_NEWNET)  # type: ignore[attr-defined,unused-ignore]


# os.setns came with Python 3.12.
setns: Callable[[int], None] = _setns_os if hasattr(os, "setns") else _setns_libc


def open_own_namespace() -> int:
    """A descriptor of the namespace that the calling thread is in; the caller closes it. OSError."""
    return os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
