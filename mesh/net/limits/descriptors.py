"""Descriptors of this process: how many it may have, and those that clients do not get.

Names, rules and new containers need a few at any time, so connections of clients stop short of the limit. The
kernel gives out the lowest number that is free: so a socket's own number tells how many there are.
"""

import errno
import os
import resource
import socket
import sys

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


RESERVED_MAX = 512  # of a usual limit; of a small one an eighth
OPEN = "/proc/self/fd"


def limits() -> tuple[int | None, int | None]:
    """(soft, hard) limit; None: there is none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _limit(soft), _limit(hard)


def count() -> int:
    """Descriptors that are open now. OSError where that cannot be seen."""
    return len(os.listdir(OPEN)) - 1  # the listing has one itself


def first_reserved() -> int:
    """The lowest number of those that clients do not get."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft - reserved(soft)


def is_reserved(descriptor: int) -> bool:
    """Is the number one of those that clients do not get?"""
    return descriptor >= first_reserved()


def reserved(limit: int) -> int:
    """How many of so many descriptors clients do not get."""
    return min(RESERVED_MAX, limit // 8)


def for_client(sock: socket.socket, first: int | None = None) -> socket.socket:
    """Returns the socket, which carries a client's traffic.

    If its descriptor is reserved, the socket is closed and OSError (EMFILE) is raised, as if there had been
    none. `first` is what `first_reserved` said a moment ago, for callers that make many sockets in a row.
    """
    if sock.fileno() >= (first_reserved() if first is None else first):
        sock.close()
        raise OSError(errno.EMFILE, "the last descriptors are not for clients")
    return sock


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value
